"""Renders conversations through chat templates with transformers.

Reads {"templates": {name: source}, "conversations": [row], "bos", "eos"} from standard input. A row is a line
of a data file: {"messages", "tools", "documents", "chat_template_kwargs"}. Prints {name: [[text, text]]}: for
each row the text without and with the generation prompt, or null where the template raises an error. With
--why, standard error gives the reason.

`strftime_now` returns the date that curmerge uses.
"""

import datetime
import json
import sys

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils


class Fixed(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 26)


chat_template_utils.datetime = Fixed


def main():
    asked = json.load(sys.stdin)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE()), bos_token=asked["bos"], eos_token=asked["eos"]
    )

    def render(source, row, prompt):
        tools = row.get("tools")
        try:
            return tokenizer.apply_chat_template(
                row["messages"],
                chat_template=source,
                tools=json.loads(tools) if isinstance(tools, str) else tools,
                documents=row.get("documents"),
                add_generation_prompt=prompt,
                tokenize=False,
                **row.get("chat_template_kwargs", {}),
            )
        except Exception as error:
            if "--why" in sys.argv:
                print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return None

    answers = {
        name: [[render(source, row, prompt) for prompt in (False, True)] for row in asked["conversations"]]
        for name, source in asked["templates"].items()
    }
    json.dump(answers, sys.stdout, ensure_ascii=False, indent=1)


main()
