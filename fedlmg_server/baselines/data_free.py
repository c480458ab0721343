"""What DENSE and Co-Boosting share: a generator that sees no image, the ensemble that scores it, a student.

In each epoch a new generator is trained for a while on the ensemble's answers to its images; the best ones join a pool,
and the student follows the ensemble on the pool. Sizes are ours: smaller than the papers', for a processor. The
student follows at temperature 1, where the authors' programs soften (4, and 20 in an example of DENSE's).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from common.labels.maps import to_global_indices
from common.models import feature_statistics, optimizers
from common.vision.looks import vary
from common.vision.schedule import make_scheduler
from fedlmg_server.baselines.outcome import Outcome, bytes_to_every_client, cost_of_uploads
from fedlmg_server.baselines.virtual_run import VirtualRun
from fedlmg_server.distillation.job import config_of
from fedlmg_server.distillation.student import make_student
from fedlmg_server.synthesis.losses import statistics_loss

NUM_EPOCHS, GENERATOR_STEPS, BATCH_SIZE = 30, 30, 64
"""The papers: 200, 30, 128."""
GENERATOR_LEARNING_RATE, BETAS, LONGEST_GRADIENT = 1e-3, (0.5, 0.999), 10.0
NOISE_SIZE, WIDTH = 100, 32
"""The papers: 100 to 256, 64."""


class Generator(nn.Module):
    """Noise (B, NOISE_SIZE) to images (B, 3, S, S) in [0, 1]; S a multiple of 4."""

    def __init__(self, image_size: int):
        super().__init__()
        side = image_size // 4
        self.stem = nn.Sequential(
            nn.Linear(NOISE_SIZE, 2 * WIDTH * side**2),
            nn.Unflatten(1, (2 * WIDTH, side, side)),
            nn.BatchNorm2d(2 * WIDTH),
        )
        self.body = nn.Sequential(
            nn.Upsample(scale_factor=2),
            *(nn.Conv2d(2 * WIDTH, 2 * WIDTH, 3, padding=1), nn.BatchNorm2d(2 * WIDTH), nn.LeakyReLU(0.2)),
            nn.Upsample(scale_factor=2),
            *(nn.Conv2d(2 * WIDTH, WIDTH, 3, padding=1), nn.BatchNorm2d(WIDTH), nn.LeakyReLU(0.2)),
            *(nn.Conv2d(WIDTH, 3, 3, padding=1), nn.Sigmoid()),
        )

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        return self.body(self.stem(noise))


class Ensemble:
    """The clients' classifiers, frozen; their weights (clients,) are for whoever learns them."""

    def __init__(self, run: VirtualRun):
        device, names = run.device, run.class_names
        self.members = []
        for upload in run.uploads:
            targets = {name: moments.pooled().to(device) for name, moments in upload.statistics.items()}
            rows = to_global_indices(upload.class_names, names).to(device)
            self.members.append((upload.classifier(device), upload.preprocess, rows, targets))
        self.known = torch.stack([run.known_classes[upload.client] for upload in run.uploads]).float().to(device)
        self.weights = torch.full((len(self.members),), 1 / len(self.members), device=device)

    def logits(self, images: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
        """Weighted mean of the clients' logits, each class over those that know it: (B, classes), of images in [0, 1]
        (B, 3, h, w); differentiable in both."""
        return self.mean([self._read(member, images) for member in self.members], weights)

    def mean(self, read: list[torch.Tensor], weights: torch.Tensor | None = None) -> torch.Tensor:
        """Of the clients' logits (B, classes)."""
        weights = self.weights if weights is None else weights
        votes = weights[:, None] * self.known
        return torch.einsum("kc,kbc->bc", votes, torch.stack(read)) / votes.sum(0).clamp(min=1e-6)

    def score_images(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits, and the statistics loss of the batch, () : its mean over the clients."""
        read, distances = [], []
        for member in self.members:
            classifier, _, _, targets = member
            with feature_statistics.recording(classifier, targets) as recorded:
                read.append(self._read(member, images))
            of_batch = {name: feature_statistics.pool(moments) for name, moments in recorded.items()}
            distances.append(statistics_loss(of_batch, targets).mean())
        return self.mean(read), torch.stack(distances).mean()

    def _read(self, member: tuple, images: torch.Tensor) -> torch.Tensor:
        """One client's logits, (B, classes); 0 for classes that it does not know."""
        classifier, preprocess, rows, _ = member
        spread = images.new_zeros(len(images), self.known.shape[1])
        return spread.index_copy(1, rows, classifier(preprocess(images)).float())


Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Of the labels asked for (B,), the ensemble's logits (B, classes), the statistics loss () and the student's logits."""


def generate(
    run: VirtualRun,
    ensemble: Ensemble,
    student: nn.Module,
    loss: Loss,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The batch of a new generator with the lowest loss, images (B, 3, S, S) in [0, 1], and the labels asked for."""
    device, size = run.device, run.config.training.image_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        network = Generator(size).to(device)
    noise = torch.randn(BATCH_SIZE, NOISE_SIZE, generator=generator).to(device).requires_grad_()
    labels = torch.randint(len(run.class_names), (BATCH_SIZE,), generator=generator).to(device)
    optimizer = torch.optim.Adam([*network.parameters(), noise], GENERATOR_LEARNING_RATE, BETAS)
    preprocess, best, lowest = run.preprocess, None, float("inf")
    student.eval()
    for _ in range(GENERATOR_STEPS):
        images = network(noise)
        logits, distance = ensemble.score_images(images)
        value = loss(labels, logits, distance, student(preprocess(images)))
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), LONGEST_GRADIENT)
        optimizer.step()
        if value.item() < lowest:
            lowest, best = value.item(), images.detach()
    if best is None:
        raise ValueError("the generator's loss is not finite, so the student diverged: lower 'student-learning-rate'")
    return best, labels


Teach = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Of rows of the pool: the images to show, in [0, 1], (B, 3, S, S), and the teacher's probabilities (B, classes)."""


class Student:
    """A student that the ensemble teaches in instalments; together they are as many updates as every student takes."""

    def __init__(self, run: VirtualRun):
        self.run, self.model, self.num_updates = run, make_student(run), run.num_updates
        settings = config_of(run).distillation
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            settings.student_learning_rate,
            momentum=optimizers.MOMENTUM,
            nesterov=True,
            weight_decay=optimizers.WEIGHT_DECAY,
        )
        self.scheduler = make_scheduler(self.optimizer, self.num_updates, max(1, self.num_updates // 20))
        self.update = 0

    @property
    def num_epochs(self) -> int:
        return min(NUM_EPOCHS, self.num_updates)

    def updates_by(self, epoch: int) -> int:
        """Updates done in all when an epoch, from 0, ends."""
        return self.num_updates * (epoch + 1) // self.num_epochs

    def learn(self, num_images: int, teach: Teach, until: int, generator: torch.Generator) -> None:
        """Follow on random batches of a pool of `num_images` until so many updates are done in all."""
        settings, preprocess = self.run.config.distillation, self.run.preprocess
        for _ in range(self.update, until):
            images, targets = teach(torch.randperm(num_images, generator=generator)[: settings.student_batch_size])
            self.model.train()
            shown = vary(images, self.run.config.general.looks, generator)
            log_probabilities = self.model(preprocess.normalize(shown)).log_softmax(1)
            loss = F.kl_div(log_probabilities, targets, reduction="batchmean")
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.scheduler.step()
        self.update = until


Show = Callable[[Ensemble, torch.Tensor, torch.Generator], torch.Tensor]
"""Of the pool's images in [0, 1], (B, 3, S, S): what the student and the ensemble are shown in their place."""
Reweight = Callable[[Ensemble, torch.Tensor, torch.Tensor, int], None]
"""Of the pool so far, its labels and the epoch: moves the clients' weights in the ensemble."""


def train_on_generated(run: VirtualRun, loss: Loss, show: Show, reweight: Reweight | None = None) -> Outcome:
    """Epoch by epoch: a new generator adds a batch to the pool, the ensemble is reweighted, the student follows it."""
    cost = cost_of_uploads(run)
    with cost.timed("server"):
        ensemble, student = Ensemble(run), Student(run)
        generator = torch.Generator().manual_seed(run.config.seed)
        size, device = run.config.training.image_size, run.device
        images = torch.empty(0, 3, size, size, device=device)
        labels = torch.empty(0, dtype=torch.int64, device=device)

        def teach(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            shown = show(ensemble, images[rows.to(device)], generator)
            with torch.no_grad():
                return shown, ensemble.logits(shown).softmax(1)

        for epoch in range(student.num_epochs):
            made, asked = generate(run, ensemble, student.model, loss, generator)
            images, labels = torch.cat([images, made]), torch.cat([labels, asked])
            if reweight:
                reweight(ensemble, images, labels, epoch)
            student.learn(len(images), teach, student.updates_by(epoch), generator)
    cost.num_images = len(images)
    cost.download_bytes += bytes_to_every_client(run, student.model)
    return Outcome(run.measure(student.model), cost)


def divergence(logits: torch.Tensor, student_logits: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """KL(ensemble || student) of each image, (B,)."""
    target = (logits / temperature).log_softmax(1)
    return F.kl_div((student_logits / temperature).log_softmax(1), target, reduction="none", log_target=True).sum(1)
