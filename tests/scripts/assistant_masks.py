"""Where transformers marks the assistant's tokens.

    assistant_masks.py FOLDER TEMPLATE < [messages, ...]

Prints [{"ids", "mask"}]: the tokens of each conversation by the folder's tokenizer through the template, which marks with
`{% generation %}`, and 1 for those of the assistant.
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
