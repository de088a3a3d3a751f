"""Runs llama.cpp, from the PyPI package xllamacpp, for the other scripts of this folder."""

import http.client
import json
import urllib.parse

import xllamacpp


class Llama:
    """llama.cpp's server with a model and optionally a LoRA, on a free local port.

    The cache of keys and values is f32 and flash attention is off. With F32 weights, all computation is in
    f32.
    """

    def __init__(self, model, lora=None, context=1024):
        params = xllamacpp.CommonParams()
        params.model.path = str(model)
        params.n_ctx = context
        params.n_parallel = 1
        params.warmup = False
        # One thread: the models are small, and spinning threads wait for each other on a busy machine.
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.port = 0
        params.cache_type_k = xllamacpp.ggml_type.GGML_TYPE_F32
        params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        if lora:
            adapter = xllamacpp.CommonAdapterLoraInfo()
            adapter.path = str(lora)
            adapter.scale = 1.0
            params.lora_adapters = [adapter]
        self.server = xllamacpp.Server(params)
        address = urllib.parse.urlsplit(self.server.listening_address)
        self.connection = http.client.HTTPConnection(address.hostname, address.port, timeout=300)

    def ask(self, path, **body):
        """Returns the server's JSON answer to a POST request."""
        self.connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"llama.cpp answered {answer.status} to {path}: {content[:300]!r}")
        return json.loads(content)

    def log_probs(self, tokens, count):
        """Returns the `count` likeliest next tokens as {id: natural log-probability}."""
        # The server gives them before sampling. It gives none if the sampled token ends the text or is part
        # of a character, so "a" is forced.
        answer = self.ask("/completion", prompt=tokens, n_predict=1, n_probs=count, temperature=0.0,
                          cache_prompt=False, logit_bias=[["a", 1000.0]])
        return {t["id"]: t["logprob"] for t in answer["completion_probabilities"][0]["top_logprobs"]}

    def greedy(self, tokens, count):
        """Returns the ids of the greedy continuation."""
        answer = self.ask("/completion", prompt=tokens, n_predict=count, temperature=0.0, cache_prompt=False,
                          return_tokens=True)
        return answer["tokens"]
