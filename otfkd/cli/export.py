"""otfkd-export: write a model in sentence-transformers format with a model card, and put it on the hub if asked to."""

import argparse
import sys
from pathlib import Path
from typing import get_args

from otfkd.base.errors import UserError
from otfkd.cli.common import command_parser, exit_with
from otfkd.config.sections import Pooler


def main() -> None:
    parser = command_parser("otfkd-export", __doc__)
    parser.add_argument("source", metavar="RUN_OR_MODEL", help="a run's folder, a model's folder, a hub id or minilm")
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="the new folder")
    parser.add_argument("--pooler", choices=get_args(Pooler), help="for a model that says nothing of its pooler")
    parser.add_argument("--licence", metavar="ID", help="as the hub spells it, for instance apache-2.0")
    parser.add_argument("--onnx", action="store_true", help="write model.onnx too (needs the extra onnx)")
    parser.add_argument("--push", metavar="REPO_ID", help="then upload the folder to this repository of the hub")
    parser.add_argument("--private", action="store_true", help="make the repository private, if it is new")
    arguments = parser.parse_args()
    exit_with(lambda: _export(arguments))


def _export(arguments: argparse.Namespace) -> None:
    if arguments.private and arguments.push is None:
        raise UserError("--private is of a repository: name one with --push REPO_ID")
    from otfkd.reporting.export import check_repository, export, push

    if arguments.push is not None:
        check_repository(arguments.push)
    export(
        arguments.source, arguments.output, name=arguments.push, pooler=arguments.pooler, licence=arguments.licence,
        onnx=arguments.onnx,
    )  # fmt: skip
    sys.stdout.write(f"written to {arguments.output}\n")
    if arguments.push is not None:
        sys.stdout.write(f"pushed to {push(arguments.output, arguments.push, private=arguments.private)}\n")
