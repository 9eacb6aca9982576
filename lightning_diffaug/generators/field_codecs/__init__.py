"""Codecs of single fields: masks as channels, sound as spectrograms, texts as tokens."""

from lightning_diffaug.generators.field_codecs.base import Codecs, FieldCodec
from lightning_diffaug.generators.field_codecs.log_mel import LogMel
from lightning_diffaug.generators.field_codecs.one_hot import OneHot
from lightning_diffaug.generators.field_codecs.sentence_encoder import SentenceEncoder
from lightning_diffaug.generators.field_codecs.sequences import FrameSequence, LogMelSequence
from lightning_diffaug.generators.field_codecs.words import Words

__all__ = ["Codecs", "FieldCodec", "FrameSequence", "LogMel", "LogMelSequence", "OneHot", "SentenceEncoder", "Words"]
