"""``erasebench publish``: a run, or a run and its edits, to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from erasebench.commands import add_plugins, add_store, verb_parser

PUBLISH_HELP = """\
Sent are the run's manifest, config, tables and picture grids, its report if one was written (erasebench report RUN), and a
card. Not its prompts: their files have licences of their own. With --edits the repository is a model, else a dataset.
Images that may be unsafe (of unsafe prompts, or seen by the run's judge to be; none of the embedded model) are in
nothing that is sent, also not in the report, unless --unsafe-images is given.

examples:
  erasebench publish RUN --to USER/NAME --dry-run     what would be sent, with sizes; no network, no token
  erasebench publish RUN --to USER/NAME --private
  erasebench publish RUN --to USER/NAME --edits       each edit as a LoRA with its card, too
"""


def main(arguments: list[str]) -> int:
    """Parse, and send."""
    parser = verb_parser("publish", PUBLISH_HELP)
    parser.add_argument("run", metavar="RUN", help="the name of a finished run")
    parser.add_argument("--to", required=True, metavar="USER/NAME", help="the repository; made if it does not exist")
    parser.add_argument("--dry-run", action="store_true", help="send nothing: print every file and its size")
    parser.add_argument("--images", action="store_true", help="send the images, too")
    parser.add_argument("--unsafe-images", action="store_true", help="do not hold back images that may be unsafe")
    parser.add_argument(
        "--edits",
        nargs="?",
        const="lora",
        choices=("lora", "delta", "diffusers"),
        metavar="FORMAT",
        help="send every edit, too, as lora (if not said), delta or diffusers: see erasebench export",
    )
    parser.add_argument("--private", action="store_true", help="a repository that is made is a private one")
    add_store(parser)
    add_plugins(parser)
    options = parser.parse_args(arguments)
    from erasebench.export.publish import publish
    from erasebench.report.folder import runs_of

    report = Path(options.store) / "reports" / options.run
    publish(
        options.run,
        options.to,
        store_dir=options.store,
        report=report if runs_of(report) == [options.run] else None,
        images=options.images,
        unsafe_images=options.unsafe_images,
        edits=options.edits,
        private=options.private,
        dry_run=options.dry_run,
        plugins=options.plugins,
    )
    return 0
