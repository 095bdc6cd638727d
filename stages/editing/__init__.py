"""Picture editors of diffusers as stages: prompts and edit apart, or any pipeline whole.

Importing this imports neither diffusers nor transformers: `load` does.
"""

from stages.editing.edit import Edit
from stages.editing.prompts import EncodePrompts
from stages.editing.whole import EditWhole

__all__ = ["Edit", "EditWhole", "EncodePrompts"]
