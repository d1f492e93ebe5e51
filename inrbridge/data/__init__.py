"""Floor 7: datasets of fields: pack files into a store, and read it, or the files as they lie, as one aligned dataset."""

from inrbridge.data.alignment import align
from inrbridge.data.dataset import FieldDataset
from inrbridge.data.labelled import LabelledPoints
from inrbridge.data.loose import LooseFolder, open_store
from inrbridge.data.packing import pack
from inrbridge.data.store import Store
from inrbridge.data.targets import TargetFields
from inrbridge.data.writer import StoreWriter

__all__ = ["FieldDataset", "LabelledPoints", "LooseFolder", "Store", "StoreWriter", "TargetFields", "align", "open_store", "pack"]
