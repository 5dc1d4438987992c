"""Memory of the GPU that a model leaves behind in this process."""

from accelerate.utils.memory import clear_device_cache


def release_memory() -> None:
    """Give back, on the GPU too, what nothing refers to any more; takes up to some seconds.

    A model that accelerate has prepared refers to itself, through its new ``forward``, and a
    trainer and its optimiser to each other: dropping them frees nothing until a full collection.
    """
    clear_device_cache(garbage_collection=True)
