"""A scanner for bash: the commands of a text, their words, and where variables stand in them.

It does not judge syntax (`bash -n` does) and runs nothing. It knows quotes, comments, here-documents, arithmetic,
`[[ ]]`, `case`, nested substitutions and what opens and closes a block, which is what the lint needs in order to say
where bash would read a value again.
"""

from presets.shell.commands import scan
from presets.shell.model import Command, Scan, Use, Word, place

__all__ = ["Command", "Scan", "Use", "Word", "place", "scan"]
