"""``erasebench completion``: a script that lets a shell complete commands, config groups and their options."""

from __future__ import annotations

from erasebench.commands import VERBS, verb_parser
from erasebench.commands.list import TOPICS
from erasebench.config.choices import groups

COMPLETION_HELP = """\
examples:
  source <(erasebench completion bash)      for this shell; put the line into ~/.bashrc to have it in each
  source <(erasebench completion zsh)       likewise, into ~/.zshrc
"""

OVERRIDES = ("run", "tune", "prefetch", "doctor")
"""Commands that take key=value."""

SHELLS = ("bash", "zsh")

BASH = """\
_erasebench() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" verb="${{COMP_WORDS[1]}}" key=""
  # bash takes = for a word of its own
  if [[ $word == "=" ]]; then key="${{COMP_WORDS[COMP_CWORD-1]}}"; word=""
  elif [[ ${{COMP_WORDS[COMP_CWORD-1]}} == "=" ]]; then key="${{COMP_WORDS[COMP_CWORD-2]}}"; fi
  local words="" space=1
  if [[ -n $key ]]; then case "$key" in
{options}
  esac
  elif [[ $COMP_CWORD -eq 1 ]]; then words="{verbs}"
  else case "$verb" in
    {overriding}) words="{keys}"; space=0 ;;
    list) words="{topics}" ;;
  esac; fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
  [[ $space -eq 1 ]] || compopt -o nospace 2>/dev/null
}}
complete -o default -F _erasebench erasebench
"""


def main(arguments: list[str]) -> int:
    """Parse, and print."""
    parser = verb_parser("completion", COMPLETION_HELP)
    parser.add_argument("shell", choices=SHELLS)
    print(script(parser.parse_args(arguments).shell), end="")
    return 0


def script(shell: str) -> str:
    """What the shell has to read. Options of a user's own are not in it."""
    known = groups()
    made = BASH.format(
        options="\n".join(f'    {group}) words="{" ".join(names)}" ;;' for group, names in known.items()),
        verbs=" ".join(VERBS),
        overriding="|".join(OVERRIDES),
        keys=" ".join(f"{group}=" for group in known),
        topics=" ".join(TOPICS),
    )
    return made if shell == "bash" else f"autoload -U +X bashcompinit && bashcompinit\n{made}"
