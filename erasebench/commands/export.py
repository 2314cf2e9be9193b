"""``erasebench export``: an edit for use elsewhere, with a model card."""

from __future__ import annotations

from erasebench.commands import VERBS


def main(arguments: list[str]) -> int:
    """Read ``name=value`` settings, and export."""
    from erasebench.export.export import FORMS, KEYS, export, settings

    if arguments and not {"-h", "--help"} & set(arguments):
        export(**settings(arguments))
        return 0
    print(
        "\n".join(
            [
                "usage: erasebench export format=FORMAT [run=NAME] [eraser=LABEL] [task=LABEL] [...]",
                "",
                VERBS["export"][0].upper() + VERBS["export"][1:] + ".",
                "",
                *(f"  format={name:<11} {text}" for name, text in FORMS.items()),
                "",
                "settings",
                *(f"  {name + '=':<8} {text}" for name, text in KEYS.items()),
                "",
                "  erasebench export format=lora                              the only edit of the latest run",
                "  erasebench export run=mine eraser=uce task=church format=lora",
                "  erasebench export edit=3fa9c1 format=diffusers out=erased  an edit by the first digits of its key",
                "",
                "README.md in the new folder says what was erased, with which measured effect, and how to load it.",
            ]
        )
    )
    return 0
