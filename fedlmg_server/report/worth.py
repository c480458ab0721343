"""What the round was worth: a sentence for each client, and one for the mean client."""

from common.worth import mean_of_pairs, say_worth, tenths_gained
from fedlmg_server.results import Results


def of_mean_client(results: Results) -> str:
    """The sentence for the mean of all clients that told, and how many of them gained nothing; empty if none told."""
    told = list(results.clients.values())
    without, with_round = mean_of_pairs((client.no_federation_accuracy, client.personal_accuracy) for client in told)
    everywhere = mean_of_pairs(
        (client.no_federation_accuracy_all_clients, client.personal_accuracy_all_clients) for client in told
    )
    sentence = say_worth(without, with_round, everywhere, "the mean client")
    if sentence and (none := clients_without_gain(results)):
        sentence += f" {len(none)} of {len(of_clients(results))} clients gained nothing on their own images."
    return sentence


def of_clients(results: Results) -> dict[str, str]:
    """Client -> its sentence, for the clients that told."""
    sentences = {
        name: say_worth(
            client.no_federation_accuracy,
            client.personal_accuracy,
            (client.no_federation_accuracy_all_clients, client.personal_accuracy_all_clients),
        )
        for name, client in results.clients.items()
    }
    return {name: sentence for name, sentence in sentences.items() if sentence}


def clients_without_gain(results: Results) -> list[str]:
    """Names of the clients whose personal model is no better on their own images than the one without the round."""
    return [
        name
        for name, client in results.clients.items()
        if client.personal_accuracy is not None
        and client.no_federation_accuracy is not None
        and tenths_gained(client.no_federation_accuracy, client.personal_accuracy) <= 0
    ]
