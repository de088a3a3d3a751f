"""Conversations through chat templates, by transformers.

Reads {"templates": {name: source}, "conversations": [row], "bos", "eos"} on standard input, where a row is a line of a
data file ({"messages", "tools", "documents", "chat_template_kwargs"}). Writes {name: [[text, text]]}: for each row the
text without and with the generation prompt, null where the template refuses it.

`strftime_now` gives the day that curmerge gives.
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
