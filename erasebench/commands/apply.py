"""``erasebench apply``: edits onto a model, as a diffusers folder."""

from __future__ import annotations

from erasebench.commands import verb_parser

APPLY_HELP = """\
examples:
  erasebench apply 3fa9c1 --to sd14 --out erased
  erasebench apply church.safetensors tench.safetensors --to my/model --how sequence --out erased
An edit fits where every weight it changes is there with the same shape; else it is refused and nothing written.
"""


def main(arguments: list[str]) -> int:
    """Parse, and write the folder."""
    parser = verb_parser("apply", APPLY_HELP)
    parser.add_argument(
        "edits", nargs="+", metavar="EDIT", help="an edit file, or a key in the store (its first digits)"
    )
    parser.add_argument(
        "--to", required=True, metavar="MODEL", help="a model's name (list models), a folder or a Hub id"
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="the new diffusers folder")
    parser.add_argument(
        "--how",
        default="sum",
        help="several edits: sum (each was made for the unedited model; the default) or sequence (in the order given)",
    )
    parser.add_argument("--dtype", default="auto", help="float32 (auto), float16 or bfloat16: the type to write")
    parser.add_argument("--compose", action="store_true", help="allow a model that is already edited")
    parser.add_argument("--store", default="results", help="the results folder where keys are looked up")
    options = parser.parse_args(arguments)
    from erasebench.export.apply import apply

    apply(options.edits, options.to, options.out, options.how, options.dtype, options.compose, options.store)
    return 0
