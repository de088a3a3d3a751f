"""Names of Llama's tensors, and the order of the rows of q and k, in GGUF files and Hugging Face folders."""


class Names:
    """Maps GGUF's names of tensors to Hugging Face's."""

    PARTS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
             "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
             "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
    WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}

    @classmethod
    def to_hf(cls, name):
        """blk.0.attn_q -> model.layers.0.self_attn.q_proj.weight"""
        if name in cls.WHOLE:
            return cls.WHOLE[name] + ".weight"
        _, layer, part = name.split(".")
        return f"model.layers.{layer}.{cls.PARTS[part]}.weight"


def unpermute(w, heads):
    """Reorders the rows of q or k from GGUF, which interleaves the rotary halves of a head, to Hugging Face."""
    return w.reshape(heads, w.shape[0] // heads // 2, 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


def permute(w, heads):
    """Reorders the rows of q or k from Hugging Face, which keeps the rotary halves of a head apart, to GGUF."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)
