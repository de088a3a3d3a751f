"""Prints which tokens transformers assigns to the assistant.

    assistant_masks.py FOLDER TEMPLATE < [messages, ...]

TEMPLATE marks the assistant's text with `{% generation %}`. Prints [{"ids", "mask"}]: the tokens of each
conversation, from the folder's tokenizer, and a mask that is 1 at the assistant's tokens.
"""

import json
import sys
from pathlib import Path

from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
template = Path(sys.argv[2]).read_text()


def asked(messages):
    made = tokenizer.apply_chat_template(
        messages, chat_template=template, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    return {"ids": made["input_ids"], "mask": made["assistant_masks"]}


print(json.dumps([asked(messages) for messages in json.load(sys.stdin)]))
