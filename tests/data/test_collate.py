"""Padding, views and moves of a batch."""

import numpy as np
import torch

from otfkd.data.collate import Batch, Tokens, pad


def test_rows_are_padded_on_the_right_to_the_longest() -> None:
    tokens = pad([[2, 7, 3], [2, 3], [2, 8, 9, 3]], pad_id=5)
    assert tokens.input_ids.tolist() == [[2, 7, 3, 5], [2, 3, 5, 5], [2, 8, 9, 3]]
    assert tokens.attention_mask.tolist() == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]]


def test_a_real_token_that_equals_the_padding_stays_visible() -> None:
    assert pad([[0, 0], [1]], pad_id=0).attention_mask.tolist() == [[1, 1], [1, 0]]


def test_tokens_are_int64_whatever_the_rows_are() -> None:
    tokens = pad([np.array([1, 2], np.int32)], pad_id=0)
    assert (tokens.input_ids.dtype, tokens.attention_mask.dtype) == (torch.int64, torch.int64)


def test_twice_is_the_whole_batch_and_then_again() -> None:
    twice = pad([[1, 2], [3]], pad_id=0).twice()
    assert twice.input_ids.tolist() == [[1, 2], [3, 0], [1, 2], [3, 0]]
    assert twice.attention_mask.tolist() == [[1, 1], [1, 0], [1, 1], [1, 0]]


def test_a_batch_moves_whole() -> None:
    tokens = Tokens(torch.zeros(1, 1), torch.ones(1, 1))
    moved = Batch((0,), tokens, (tokens,)).to("meta", non_blocking=True)
    devices = [getattr(part, name).device.type for part in (moved.student, *moved.teachers) for name in vars(tokens)]
    assert (moved.lines, devices) == ((0,), ["meta"] * 4)


def test_a_batch_without_teacher_tokens_moves_too() -> None:
    assert Batch((0,), pad([[1]], 0)).to("meta").teachers == ()
