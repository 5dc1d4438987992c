"""What a study compares: data, model, budget, seeds and arms; ``configs/study/<name>.yaml``."""

from collections import Counter
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from qoq_lib.data.balance import Rule
from qoq_lib.data.prompts import AnswerStyle
from qoq_lib.model.loading import AlignmentPlan, LoadError, ModelSize, load_size
from qoq_lib.runs import OneSentenceError
from qoq_lib.training.methods import Method, load_method
from qoq_lib.training.rewards import PRESETS as REWARDS


class StudyError(OneSentenceError, RuntimeError):
    """A study cannot be planned, run or compared; the message says why and what to do."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataPlan(_Part):
    """What every seed assembles.

    Attributes:
        source: ``phantom`` (``rows`` and ``difficulty`` as ``assemble`` takes them) or ``kit``.
        balance: which training rows are kept; with ``temperature`` and ``cap`` as
            ``data.balance.Balance`` takes them.
    """

    source: Literal["phantom", "kit"]
    rows: int = Field(default=3000, gt=0)
    difficulty: float = Field(default=0.0, ge=0, le=1)
    balance: Rule = "natural"
    temperature: float = Field(default=2.0, gt=0)
    cap: int | None = Field(default=None, gt=0)


class Budget(_Part):
    """Fields of ``model.loading.TrainingPlan``, the same for all arms; ``None``: the size's."""

    steps: int | None = Field(default=None, gt=0)
    questions_per_step: int | None = Field(default=None, gt=0)
    rollouts: int | None = Field(default=None, gt=1)
    micro_batch: int | None = Field(default=None, gt=0)
    learning_rate: float | None = Field(default=None, gt=0)
    beta: float | None = Field(default=None, ge=0)


class Arm(_Part):
    """One arm: the file ``configs/method/<method>.yaml`` and what differs from it.

    Attributes:
        name: as tables and figures call it.
        method: ``None``: the aligned start itself, not trained further.
        reward: a key of ``training.rewards.PRESETS``.
        drpo: fields of ``DrpoConfig`` (and ``preset``) in place of the file's.
        grpo: fields of the loss (``training.methods.LOSS_FIELDS``) in place of the file's.
        learning_rate: in place of the budget's, for a baseline at the rate that suits it best.
    """

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    method: str | None = None
    reward: str = "paper"
    drpo: dict[str, Any] = Field(default_factory=dict)
    grpo: dict[str, Any] = Field(default_factory=dict)
    learning_rate: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _trainable(self) -> "Arm":
        if self.reward not in REWARDS:
            raise ValueError(f"reward {self.reward!r} is none of {', '.join(REWARDS)}")
        if self.method is None and (self.drpo or self.grpo or self.learning_rate):
            raise ValueError(
                "an arm without a method is not trained and takes no drpo, grpo or learning_rate"
            )
        self.resolved()
        return self

    def resolved(self) -> Method | None:
        """The method with the arm's own choices."""
        if self.method is None:
            return None
        try:
            values = load_method(self.method).model_dump()
        except LoadError as error:  # pydantic reports a ValueError with the place in the file
            raise ValueError(str(error)) from error
        return Method(
            **values | {"drpo": values["drpo"] | self.drpo, "grpo": values["grpo"] | self.grpo}
        )


class Study(_Part):
    """A study; ``configs/study/reduced.yaml`` shows every field.

    Attributes:
        answer_style: how answers are asked for; ``None``: as the size has it.
        alignment: ``None``: as ``configs/model`` has it for the size.
        seeds: each decides data, first weights, alignment, order of questions and sampling, for all
            arms alike.
        split: what the arms are scored on; ``validation`` is for tuning.
        baselines: names of the arms that the others are compared with, the leading one first.
    """

    name: str
    data: DataPlan
    model_size: str
    answer_style: AnswerStyle | None = None
    alignment: AlignmentPlan | None = None
    budget: Budget = Budget()
    seeds: list[int] = Field(min_length=1)
    split: Literal["test", "validation"] = "test"
    baselines: list[str] = Field(min_length=1)
    arms: list[Arm] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> "Study":
        names = [arm.name for arm in self.arms]
        for what, values in (("arms", names), ("seeds", self.seeds)):
            twice = [value for value, count in Counter(values).items() if count > 1]
            if twice:
                raise ValueError(f"{what} holds {twice[0]!r} twice")
        if unknown := [name for name in self.baselines if name not in names]:
            raise ValueError(f"the baseline {unknown[0]!r} is no arm of the study")
        if len(names) == 1:
            raise ValueError(f"arms holds {names[0]!r} alone, which is compared with nothing")
        return self

    @property
    def shares_patients(self) -> bool:
        """Whether the seeds split one pool of patients anew; a phantom's seeds have their own."""
        return self.data.source == "kit"

    def size(self, arm: Arm | None = None) -> ModelSize:
        """The model size with the study's alignment and budget, and the arm's learning rate."""
        values = load_size(self.model_size).model_dump()
        values["answer_style"] = self.answer_style or values["answer_style"]
        values["training"] |= self.budget.model_dump(exclude_none=True)
        if arm is not None and arm.learning_rate is not None:
            values["training"]["learning_rate"] = arm.learning_rate
        if self.alignment is not None:
            values["alignment"] = self.alignment.model_dump()
        return ModelSize(**values)


def load_study(path: Path) -> Study:
    """Read a study file, named as the file is.

    Raises:
        StudyError: there is no such file, or something in it is wrong; the message says where.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        return Study(name=Path(path).stem, **values)
    except OSError as error:
        raise StudyError(f"Cannot read the study {path} ({error.strerror}).") from error
    except (yaml.YAMLError, TypeError) as error:
        raise StudyError(f"{path} is no YAML file of a study: compare reduced.yaml.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the study"
        raise StudyError(f"{path}, {where}: {first['msg']}.") from error
