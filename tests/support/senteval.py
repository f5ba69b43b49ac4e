"""A synthetic copy of SentEval's STS folders: the published counts, made-up sentences."""

from pathlib import Path

# The scored pairs of each subset, as published.
YEARS: dict[str, dict[str, int]] = {
    "12": {"MSRpar": 750, "MSRvid": 750, "SMTeuroparl": 459, "surprise.OnWN": 750, "surprise.SMTnews": 399},
    "13": {"FNWN": 189, "headlines": 750, "OnWN": 561},
    "14": {"deft-forum": 450, "deft-news": 300, "headlines": 750, "images": 750, "OnWN": 750, "tweet-news": 750},
    "15": {"answers-forums": 375, "answers-students": 750, "belief": 375, "headlines": 750, "images": 750},
    "16": {
        "answer-answer": 254,
        "headlines": 249,
        "plagiarism": 230,
        "postediting": 244,
        "question-question": 209,
    },
}
# Years in whose files every pair nobody scored keeps its line: as many blank grades here as there are scored ones.
WITH_BLANKS = ("15", "16")


def make_senteval(root: Path) -> Path:
    """Write the folder in which 'STS' and 'SICK' lie and give it back."""
    for year, subsets in YEARS.items():
        folder = root / "STS" / f"STS{year}-en-test"
        folder.mkdir(parents=True)
        for name, count in subsets.items():
            _subset(folder, f"{year} {name}", name, count, blanks=year in WITH_BLANKS)
    (root / "STS/STS13-en-test/STS.gs.SMT.txt").write_text("3.0\n" * 750)
    benchmark = root / "STS" / "STSBenchmark"
    benchmark.mkdir()
    for split, count in {"train": 5749, "dev": 1500, "test": 1379}.items():
        rows = (f"news\tfile\t2017\t{i}\t{grade(i)}\t{split} {i} left\t{split} {i} right\n" for i in range(count))
        (benchmark / f"sts-{split}.csv").write_text("".join(rows))
    (root / "SICK").mkdir()
    header = "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\n"
    for file, count in {"train": 4500, "trial": 500, "test_annotated": 4927}.items():
        title = "sick" if file == "test_annotated" else f"sick {file}"
        rows = (f"{i}\t{title} {i} left\t{title} {i} right\t{grade(i)}\tNEUTRAL\n" for i in range(count))
        (root / f"SICK/SICK_{file}.txt").write_text(header + "".join(rows))
    return root


def grade(number: int) -> float:
    return number % 51 / 10


def _subset(folder: Path, title: str, name: str, count: int, *, blanks: bool) -> None:
    inputs, golds = [], []
    for i in range(count):
        if blanks:
            inputs.append(f"{title} unscored {i}\tnobody scored this\n")
            golds.append("\n")
        inputs.append(f"{title} {i} left\t{title} {i} right\n")
        golds.append(f"{grade(i)}\n")
    (folder / f"STS.input.{name}.txt").write_text("".join(inputs))
    (folder / f"STS.gs.{name}.txt").write_text("".join(golds))
