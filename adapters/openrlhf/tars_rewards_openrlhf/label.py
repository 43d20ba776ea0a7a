"""What travels with a prompt through OpenRLHF, as JSON in the one text that it carries along: the label."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from tars_rewards.errors import AdapterError


@dataclass(frozen=True)
class Label:
    """Identity of a prompt, and the user's own label."""

    pair_id: str  #: the question
    modality: str
    answer: Any  #: the user's label, from ``--data.label_key``: whatever JSON can carry
    datasource: str = "default"
    validation: bool = False  #: of the evaluation dataset: no embedding is needed

    def dump(self) -> str:
        """As JSON.

        Raises:
            AdapterError: The user's label is nothing that JSON can carry.
        """
        try:
            return json.dumps(asdict(self), ensure_ascii=False)
        except TypeError as error:
            raise AdapterError(
                f"expected a label that JSON can carry (text, numbers, lists, "
                f"mappings), got {type(self.answer).__name__}: {error}; choose another column by --data.label_key"
            ) from error

    @classmethod
    def load(cls, text: str) -> Label:
        """From JSON.

        Raises:
            AdapterError: The text is not what `dump` writes.
        """
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise AdapterError(
                f"expected a label written by the paired dataset of tars-rewards, got {text!r}; is another dataset class "
                "in place?"
            ) from error
