import builtins
import inspect
import pickle
import re

import pytest

from tars_rewards import errors

CLASSES = [item for _, item in inspect.getmembers(errors, inspect.isclass) if issubclass(item, errors.TARSError)]


@pytest.mark.parametrize("error", CLASSES)
def test_picklable_with_its_message(error: type[Exception]) -> None:
    again = pickle.loads(pickle.dumps(error("expected this, got that")))
    assert type(again) is error
    assert str(again) == "expected this, got that"


@pytest.mark.parametrize("error", [item for item in CLASSES if item is not errors.TARSError])
def test_is_a_standard_error_too(error: type[Exception]) -> None:
    standard = [base for base in error.__mro__ if base.__module__ == "builtins"]
    assert set(standard) - {Exception, BaseException, object}


def test_the_drawing_is_the_tree() -> None:
    drawn = dict(re.findall(r"[├└]── (\w+Error)(?: \((\w+)\))?", errors.__doc__))
    assert set(drawn) == {item.__name__ for item in CLASSES} - {"TARSError"}
    for name, standard in drawn.items():
        if standard:
            assert issubclass(getattr(errors, name), getattr(builtins, standard))


def test_adapters_have_their_errors() -> None:
    assert issubclass(errors.UnsupportedConfigError, (errors.AdapterError, ValueError))
    assert issubclass(errors.IncompletePairError, errors.AdapterError)
    assert issubclass(errors.CaptureError, RuntimeError)
