"""Numbers that people give."""

import math
from fractions import Fraction

import numpy as np
import pytest
from turpentine.pipeline.support.errors import UserError
from turpentine.pipeline.support.numbers import finite, whole

NO_NUMBERS = ["1", "", None, True, [1.0], {}, 1j, b"1", math.nan, math.inf, -math.inf, np.float32("nan")]


@pytest.mark.parametrize("value", [0, 1.5, -10, np.float32(0.5), np.int64(2), Fraction(1, 2)])
def test_every_kind_of_finite_number_passes(value):
    assert finite("x", value) == value and type(finite("x", value)) is float


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_nothing_else_does(value):
    with pytest.raises(UserError, match=r"^x must be a finite number, got "):
        finite("x", value)


@pytest.mark.parametrize("value", [-0.01, 1.01, *NO_NUMBERS])
def test_limits(value):
    with pytest.raises(UserError, match=r"^x must be a number in \[0, 1\], got "):
        finite("x", value, 0, 1)


@pytest.mark.parametrize("value", [0, -1, 1.0, *NO_NUMBERS])
def test_whole_numbers(value):
    assert whole("n", np.int32(1), 1) == 1
    with pytest.raises(UserError, match=r"^n must be a whole number from 1 up, got "):
        whole("n", value, 1)
