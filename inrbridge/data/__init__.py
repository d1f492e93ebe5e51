"""Floor 7: packed datasets of fields: pack files into a store, and read it as one aligned dataset."""

from inrbridge.data.alignment import align
from inrbridge.data.dataset import FieldDataset
from inrbridge.data.packing import pack
from inrbridge.data.store import Store
from inrbridge.data.writer import StoreWriter

__all__ = ["FieldDataset", "Store", "StoreWriter", "align", "pack"]
