"""XGen's tokenizer without remote code: GPT-2's byte-pair ranks, extended by runs of spaces and tabs.

The checkpoint's own tokenizer is a Python file on tiktoken. Its extra runs (31 to 2 spaces, 9 to 2 tabs) are
mergeable ranks, not added tokens: two spaces before a word stay " " + " word", and forty give runs of 31, 8
and 1. A fast tokenizer gives the same ids when every split of a token into two known ones is a merge.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from lazybench.errors import UserError

# GPT-2's splitting, as tiktoken's gpt2 encoding states it
GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
RANKS_FILE = "gpt2.tiktoken"  # "base64-of-bytes rank" a line, tiktoken's own format
FIM_TOKENS = ("<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>", "<filename>", "<gh_stars>")
FIM_TOKENS += ("<issue_start>", "<issue_comment>", "<issue_closed>", "<jupyter_start>", "<jupyter_text>")
FIM_TOKENS += ("<jupyter_code>", "<jupyter_output>", "<empty_output>", "<commit_before>", "<commit_msg>")
FIM_TOKENS += ("<commit_after>", "<reponame>")
END_OF_TEXT = "<|endoftext|>"
MAXIMUM_TOKENS = 8192


def extended_ranks(gpt2: dict[bytes, int]) -> dict[bytes, int]:
    """GPT-2's ranks with XGen's runs behind them; one id is left free for the end of text.

    Args:
        gpt2: bytes to rank; its own ``<|endoftext|>`` takes the id right after the last.
    """
    ranks = dict(gpt2)
    runs = [b" " * count for count in range(31, 1, -1)] + [b"\t" * count for count in range(9, 1, -1)]
    for index, run in enumerate(runs, start=len(gpt2) + 1):
        ranks.setdefault(run, index)  # a vocabulary that has a run already keeps its own id for it
    return ranks


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
    tokenizer = Tokenizer(BPE(vocab=vocab, merges=pairs, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(GPT2_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    vocab[END_OF_TEXT] = end_of_text
    tokenizer.model = BPE(vocab=vocab, merges=pairs, ignore_merges=True)
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


def xgen_tokenizer(source: str, revision: str | None = None) -> PreTrainedTokenizerFast:
    """XGen's tokenizer for the checkpoint at ``source``: no BOS, padding is the end of text.

    GPT-2's ranks come from ``gpt2.tiktoken`` in the checkpoint's folder if it is there, else from tiktoken,
    which downloads them once.

    Raises:
        UserError: the ranks can't be had.
    """
    own = Path(source) / RANKS_FILE
    if own.is_file():
        from tiktoken.load import load_tiktoken_bpe

        gpt2 = load_tiktoken_bpe(str(own))
    else:
        gpt2 = _downloaded_ranks()
    return tokenizer_of_ranks(extended_ranks(gpt2), end_of_text=len(gpt2))


def _downloaded_ranks() -> dict[bytes, int]:
    import tiktoken

    try:
        return dict(tiktoken.get_encoding("gpt2")._mergeable_ranks)
    except Exception as error:
        raise UserError(
            f"XGen's tokenizer needs GPT-2's ranks, which tiktoken could not download ({type(error).__name__}); go "
            f"online once, point TIKTOKEN_CACHE_DIR at tiktoken's cache, or put them into the folder as {RANKS_FILE}"
        ) from error
