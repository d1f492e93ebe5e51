"""Floor 8: look at a configuration as a run would, without running: names, data, model."""

from __future__ import annotations

from inrbridge.sampling.fixed import named_sampler
from inrbridge.training.augmenting import check_augment
from inrbridge.training.config import TrainConfig
from inrbridge.training.distributed import choose_device
from inrbridge.training.evaluating import check_measurable
from inrbridge.training.run_folder import datasets_of
from inrbridge.training.starting import first_model
from inrbridge.training.tasks import make_task


def check_config(config: TrainConfig) -> dict:
    """Return what a run of this configuration would work on.

    Raises:
        InrBridgeError: what the run itself would raise before its first step.
    """
    for name in (*config.points.samplers, config.points.eval_sampler):
        named_sampler(name)
    device = choose_device(config.run.device)
    train_set, eval_set = datasets_of(config, None, None)
    check_augment(config.augment, train_set.domain, train_set.channels)
    task = make_task(config, train_set.domain)
    outputs = task.outputs(train_set)
    if eval_set is not None:
        check_measurable(eval_set, task, train_set.class_names)
    model, name = first_model(config, train_set, task)
    per_epoch = max(1, len(train_set) // config.data.batch_size)
    return {
        "task": f"{config.task}, {outputs} outputs",
        "domain": str(train_set.domain),
        "channels": ", ".join(train_set.channels),
        "training fields": len(train_set),
        "evaluation fields": 0 if eval_set is None else len(eval_set),
        "formats": ", ".join(sorted(set(train_set.formats))),
        "model": f"{name}, {sum(p.numel() for p in model.parameters()):,} parameters",
        "steps": config.optimizer.steps or config.optimizer.epochs * per_epoch,
        "device": str(device),
    }
