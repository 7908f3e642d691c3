"""The head as the classifier of a Hugging Face model: configuration, checkpoints, Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ncmi

transformers = pytest.importorskip("transformers", minversion="5.0")
from transformers.modeling_outputs import SequenceClassifierOutput  # noqa: E402


class Config(transformers.PretrainedConfig):  # type: ignore[misc, name-defined]
    model_type = "ncmi-test"

    def __init__(self, width: int = 16, num_labels: int = 4, head: dict[str, Any] | None = None, **rest: Any) -> None:
        self.width, self.head = width, head or {}
        super().__init__(**{"num_labels": num_labels, "problem_type": "single_label_classification"} | rest)


class Base(transformers.PreTrainedModel):  # type: ignore[misc, name-defined]
    config_class, base_model_prefix = Config, "body"

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ncmi.NCMIHead):
            module.reset_parameters()


class Body(Base):
    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.layer = nn.Linear(8, config.width)
        self.post_init()

    def forward(self, inputs: Tensor) -> Tensor:
        features: Tensor = self.layer(inputs)
        return features


class ForSequenceClassification(Base):
    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.body = Body(config)
        self.classifier = ncmi.NCMIHead(config.width, config.num_labels, **config.head)
        self.post_init()

    def forward(self, inputs: Tensor, labels: Tensor | None = None, **options: Any) -> SequenceClassifierOutput:
        scores = self.classifier(self.body(inputs))
        loss = None if labels is None else self.loss_function(labels, scores, self.config, **options)
        return SequenceClassifierOutput(loss=loss, logits=scores)


HEADS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.07, "anchors": "random", "center": "ema", "weight": [1.0, 2.0, 3.0, 4.0]},
    {"centroids": "fixed", "weight": "balanced", "anchor_scale": 3.0},
    {"centroids": "class_mean", "anchor_scale": 10.0, "robustness": "auto", "center": "frozen"},
    {"form": "mean_of_ratios", "separation_power": 1.0, "anchor_scale": 10.0},
]


def moved(model: ForSequenceClassification) -> ForSequenceClassification:
    """A model whose every tensor, statistics too, has left its start."""
    with torch.no_grad():
        for value in [*model.parameters(), *model.buffers()]:
            if value.is_floating_point():
                value.uniform_(0.5, 2.0)
            else:
                value.fill_(1)
    return model


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=0, atol=0, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("head", HEADS)
def test_save_and_load(tmp_path: Path, head: dict[str, Any]) -> None:
    model = moved(ForSequenceClassification(Config(head=head)))
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    assert Config.from_pretrained(tmp_path).head == head
    loaded, info = ForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
    same(tensors(model), tensors(loaded))
    inputs = torch.randn(3, 8)
    assert torch.equal(loaded.eval()(inputs).logits, model.eval()(inputs).logits)
    assert loaded.classifier.centroid_logits.requires_grad == (head.get("centroids", "learned") == "learned")


@pytest.mark.parametrize("head", HEADS)
def test_base_checkpoint_leaves_the_head_at_its_anchors(tmp_path: Path, head: dict[str, Any]) -> None:
    body = Body(Config())
    body.save_pretrained(tmp_path)
    model = ForSequenceClassification.from_pretrained(tmp_path, config=Config(head=head))
    assert torch.equal(model.body.layer.weight, body.layer.weight)
    same(tensors(ncmi.NCMIHead(16, 4, **head)), tensors(model.classifier))


def test_another_number_of_classes(tmp_path: Path) -> None:
    model = moved(ForSequenceClassification(Config()))
    model.save_pretrained(tmp_path)
    loaded = ForSequenceClassification.from_pretrained(tmp_path, num_labels=6, ignore_mismatched_sizes=True)
    assert torch.equal(loaded.body.layer.weight, model.body.layer.weight)
    same(tensors(ncmi.NCMIHead(16, 6)), tensors(loaded.classifier))


def test_other_options_are_refused(tmp_path: Path) -> None:
    ForSequenceClassification(Config()).save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match=r"temperature=0\.5 \(here 0\.2"):
        ForSequenceClassification.from_pretrained(tmp_path, head={"temperature": 0.2})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    model = ForSequenceClassification(Config(head={"temperature": 0.07}))
    model.save_pretrained(tmp_path)
    loaded = ForSequenceClassification.from_pretrained(tmp_path, dtype=dtype)
    assert loaded.classifier.centroid_logits.dtype == dtype
    inputs = torch.randn(5, 8)
    assert torch.equal(loaded(inputs.to(dtype)).logits.argmax(1), model(inputs).logits.argmax(1))
    loaded.save_pretrained(tmp_path / "half")
    ForSequenceClassification.from_pretrained(tmp_path / "half")


def test_init_can_be_repeated_by_hand(tmp_path: Path) -> None:
    """What was loaded is only kept while transformers initializes the rest."""
    moved(ForSequenceClassification(Config())).save_pretrained(tmp_path)
    loaded = ForSequenceClassification.from_pretrained(tmp_path)
    loaded.classifier.reset_parameters()
    assert torch.equal(loaded.classifier.centroid_logits, ncmi.NCMIHead(16, 4).centroid_logits)


@pytest.mark.parametrize("head", [{}, {"centroids": "fixed", "anchor_scale": 3.0}, {"center": "ema"}])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_trainer(tmp_path: Path, head: dict[str, Any], smoothing: float) -> None:
    pytest.importorskip("accelerate")
    torch.manual_seed(0)
    means = 2 * torch.randn(4, 8)
    labels = torch.arange(160) % 4
    inputs = means[labels] + torch.randn(160, 8)
    data = [{"inputs": x, "labels": y} for x, y in zip(inputs, labels, strict=True)]
    options = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        num_train_epochs=12,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        learning_rate=0.02,
        label_smoothing_factor=smoothing,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        save_strategy="epoch",
        save_total_limit=1,
        logging_strategy="no",
    )

    def accuracy(prediction: Any) -> dict[str, float]:
        return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}

    trainer = transformers.Trainer(
        ForSequenceClassification(Config(head=head)),
        options,
        train_dataset=data,
        eval_dataset=data,
        compute_metrics=accuracy,
    )
    trainer.train()
    found = trainer.evaluate()
    assert found["eval_accuracy"] > 0.9
    (checkpoint,) = tmp_path.glob("checkpoint-*")
    loaded = ForSequenceClassification.from_pretrained(checkpoint)
    same(tensors(trainer.model), tensors(loaded))
    predicted = loaded.classifier.predict(loaded.body(inputs))
    assert float((predicted == labels).float().mean()) == pytest.approx(found["eval_accuracy"])
