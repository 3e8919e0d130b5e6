"""Which tokens are chosen: exact counts, nothing lost that always stays, the same alone and in a batch."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lazybench.pruning.budgets import Mass, Ratio, Tokens
from lazybench.pruning.selection import choose, choose_chunks


def drawn(batch: int, keys: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores, positions with gaps and in no order, and tokens that always stay (one or two per row)."""
    generator = torch.Generator().manual_seed(seed)
    score = torch.rand(batch, keys, generator=generator, dtype=torch.float64)
    position = torch.stack([torch.randperm(2 * keys, generator=generator)[:keys] for _ in range(batch)])
    always = torch.zeros(batch, keys, dtype=torch.bool)
    always.scatter_(1, torch.randint(keys, (batch, 2), generator=generator), True)
    return score, position, always


def tokens(row: torch.Tensor) -> set[int]:
    return {token for token in row.tolist() if token >= 0}


drawn_cases = settings(max_examples=100, deadline=None, derandomize=True, database=None)


@drawn_cases
@given(seed=st.integers(0, 10_000), keys=st.integers(3, 30), data=st.data())
def test_each_row_keeps_its_count_and_the_best_beside_those_that_always_stay(seed, keys, data):
    score, position, always = drawn(3, keys, seed)
    counts = data.draw(st.lists(st.integers(2, keys), min_size=3, max_size=3))
    chosen = choose(score, position, always, counts)
    assert chosen.shape == (3, max(counts))
    for row, count in enumerate(counts):
        kept = tokens(chosen[row])
        assert len(kept) == count == (chosen[row] >= 0).sum()
        assert kept >= set(position[row][always[row]].tolist())
        by_score = {int(at): float(value) for at, value in zip(position[row], score[row], strict=True)}
        free = [by_score[token] for token in kept - set(position[row][always[row]].tolist())]
        left = [value for token, value in by_score.items() if token not in kept]
        assert not free or not left or min(free) >= max(left)
        assert tokens(choose(score[row : row + 1], position[row : row + 1], always[row : row + 1], [count])[0]) == kept


CONTEXTS = [20, 25, 30]  # tokens so far of each row


@drawn_cases
@given(seed=st.integers(0, 10_000), chunk=st.integers(1, 5), reduce=st.sampled_from(["sum", "mean"]), data=st.data())
def test_chunks_stay_or_go_together_alone_as_in_a_batch(seed, chunk, reduce, data):
    keys = data.draw(st.integers(3, 20))
    score, position, always = drawn(3, keys, seed)
    valid = torch.arange(keys) >= torch.tensor([0, 1, keys - 2])[:, None]
    budget = data.draw(
        st.sampled_from([Ratio(0.4), Tokens(2), Ratio(0.4, "context"), Mass(0.5), Mass(0.5, crossing=False)])
    )
    chosen, counts = choose_chunks(score, position, always, budget, chunk, reduce, CONTEXTS, valid)
    for row in range(3):
        real = valid[row]
        kept = tokens(chosen[row])
        assert len(kept) == counts[row]
        assert kept >= set(position[row][always[row] & real].tolist())
        places = [position[row].tolist().index(token) for token in chosen[row, : counts[row]].tolist()]
        ranked = [2.0 if always[row, place] else float(score[row, place]) for place in places]
        assert ranked == sorted(ranked, reverse=True)  # the best first
        alone, count = choose_chunks(
            *(of[row][real][None] for of in (score, position, always)), budget, chunk, reduce, [CONTEXTS[row]]
        )
        assert tokens(alone[0]) == kept
        assert count == [counts[row]]
        in_order = sorted(position[row][real].tolist())
        forced = set(position[row][always[row]].tolist())
        for start in range(0, len(in_order), chunk):
            members = set(in_order[start : start + chunk])
            assert members <= kept or members & kept <= forced


@drawn_cases
@given(seed=st.integers(0, 10_000), chunk=st.integers(1, 4))
def test_chunks_do_not_depend_on_the_order_of_the_slots(seed, chunk):
    score, position, always = drawn(1, 12, seed)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(seed))
    expected = choose_chunks(score, position, always, Ratio(0.5), chunk, "mean", [12])
    shuffled = choose_chunks(score[:, order], position[:, order], always[:, order], Ratio(0.5), chunk, "mean", [12])
    assert tokens(shuffled[0][0]) == tokens(expected[0][0])
    assert shuffled[1] == expected[1]


def test_a_token_that_always_stays_outranks_any_score():
    position = torch.arange(4)[None]
    score = torch.tensor([[torch.finfo(torch.float32).max, 1.0, 0.0, -5.0]])
    assert choose(score, position, position == 3, [1]).tolist() == [[3]]
