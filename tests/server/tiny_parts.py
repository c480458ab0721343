"""The parts of tiny pipelines: tokenizers, text encoders and autoencoders."""

from typing import Any

from diffusers import AutoencoderKL
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Gemma2Config,
    Gemma2Model,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from fedlmg_server.diffusion.pretraining import tiny_pipeline

WIDTH = 16
CHAT = "{% for message in messages %}<|user|>{{ message['content'] }}<|assistant|>{% endfor %}"


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Of bytes, with a chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<pad>", "<eos>", "<|user|>", "<|assistant|>", "<|im_start|>", "<|im_end|>", *alphabet]
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, [], unk_token="<eos>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", chat_template=CHAT, model_max_length=512
    )


VOCABULARY = 6 + 256
SIZES = {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 3}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}
IDS = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}


def make_clip(kind: type = CLIPTextModelWithProjection) -> tuple[Any, CLIPTokenizer]:
    tokenizer = tiny_pipeline._character_tokenizer()
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = CLIPTextConfig(
        **SIZES | {"vocab_size": len(tokenizer)},
        projection_dim=WIDTH,
        num_attention_heads=2,
        max_position_embeddings=24,
        **ids,
    )
    return kind(config), tokenizer


def make_t5() -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=VOCABULARY,
            d_model=WIDTH,
            d_kv=8,
            d_ff=WIDTH,
            num_layers=2,
            num_heads=2,
            feed_forward_proj="gated-gelu",
        )
    )


def make_gemma() -> Gemma2Model:
    return Gemma2Model(Gemma2Config(**SIZES, **HEADS, **IDS, query_pre_attn_scalar=8))


def make_autoencoder(channels: int, kind: type = AutoencoderKL, **changes: Any) -> Any:
    """Two levels: a latent is two pixels wide."""
    return kind(
        block_out_channels=(16, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        norm_num_groups=8,
        sample_size=16,
        **changes,
    )


SCALED = {"scaling_factor": 0.7, "shift_factor": 0.1, "use_quant_conv": False, "use_post_quant_conv": False}
