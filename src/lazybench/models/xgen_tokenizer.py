"""XGen's tokenizer without remote code: GPT-2's byte-pair ranks, extended by runs of spaces and tabs.

The checkpoint's own tokenizer is a Python file on tiktoken. Its extra runs (31 to 2 spaces, 9 to 2 tabs) are
mergeable ranks, not added tokens: two spaces before a word stay " " + " word", and forty give runs of 31, 8
and 1. A fast tokenizer gives the same ids when every split of a token into two known ones is a merge.
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from lazybench.errors import library_errors

# GPT-2's splitting, as tiktoken's gpt2 encoding states it
GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
ENCODER_FILE = "encoder.json"  # GPT-2's own vocabulary
FIM_TOKENS = (
    *("<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>", "<filename>", "<gh_stars>"),
    *("<issue_start>", "<issue_comment>", "<issue_closed>", "<jupyter_start>", "<jupyter_text>", "<jupyter_code>"),
    *("<jupyter_output>", "<empty_output>", "<commit_before>", "<commit_msg>", "<commit_after>", "<reponame>"),
)
END_OF_TEXT = "<|endoftext|>"
MAXIMUM_TOKENS = 8192


OTHERWISE = f"; go online once, set TIKTOKEN_CACHE_DIR to a filled cache, or put GPT-2's {ENCODER_FILE} into model.path"


def tokenizer_of_ranks(ranks: dict[bytes, int], end_of_text: int) -> PreTrainedTokenizerFast:
    """A fast tokenizer that gives tiktoken's ids for these mergeable ranks."""
    letters = bytes_to_unicode()

    def text(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    merges = []
    for token, rank in ranks.items():
        splits = [
            (ranks[left], ranks[right], text(left), text(right))
            for left, right in ((token[:cut], token[cut:]) for cut in range(1, len(token)))
            if left in ranks and right in ranks
        ]
        merges += [(rank, *split) for split in sorted(splits)]
    vocab = {text(token): rank for token, rank in ranks.items()}
    pairs = [(left, right) for *_, left, right in sorted(merges)]
    tokenizer = Tokenizer(BPE(vocab={**vocab, END_OF_TEXT: end_of_text}, merges=pairs, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(GPT2_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    tokenizer.add_tokens([AddedToken(name, special=False, normalized=False) for name in FIM_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        padding_side="left",
        model_max_length=MAXIMUM_TOKENS,
        clean_up_tokenization_spaces=False,
    )


def xgen_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """XGen's tokenizer: no BOS, padding is the end of text, 50,313 tokens.

    GPT-2's ranks come from the checkpoint's folder (GPT-2's own ``encoder.json``), else from tiktoken, which downloads
    them once.

    Raises:
        UserError: the ranks can't be had.
    """
    if (own := folder / ENCODER_FILE).is_file():
        byte_of = {letter: byte for byte, letter in bytes_to_unicode().items()}
        texts = json.loads(own.read_text(encoding="utf-8"))
        gpt2 = {bytes(byte_of[letter] for letter in text): rank for text, rank in texts.items() if text != END_OF_TEXT}
    else:
        with library_errors("XGen's tokenizer needs GPT-2's ranks, and tiktoken could not download them", OTHERWISE):
            import tiktoken

            gpt2 = dict(tiktoken.get_encoding("gpt2")._mergeable_ranks)
    runs = [b" " * count for count in range(31, 1, -1)] + [b"\t" * count for count in range(9, 1, -1)]
    # the end of text takes the id right after GPT-2's last
    ranks = gpt2 | {run: rank for rank, run in enumerate(runs, start=len(gpt2) + 1)}
    return tokenizer_of_ranks(ranks, end_of_text=len(gpt2))
