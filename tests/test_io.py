"""Opening, identifying, saving and building: the right format or one clear sentence."""

import gzip
import pickle

import numpy as np
import pytest
import torch
from fake_formats import RippleField, RippleFormat, ripple
from safetensors.torch import save_file

import inrbridge
from inrbridge import Box, Format, FunctionField, build_field, identify, open_field, plugins, save_field
from inrbridge.errors import (
    AmbiguousFormat,
    CannotOpen,
    CannotSave,
    ConfigError,
    InrBridgeError,
    MissingFile,
    PluginError,
    PluginWarning,
    UnknownFormat,
)
from inrbridge.io import look, verdicts


class Claimer(Format):
    """Claims what it is told to claim, and opens what it is told to open."""

    api = 1

    def __init__(self, name, suffix, answer=None):
        self.name, self.suffix, self.answer = name, suffix, answer

    def recognizes(self, probe):
        return probe.path.suffix == self.suffix

    def open(self, path, *, zoom=1, flip=False):
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    def build(self, domain, channels, *, generator=None, waves: int):
        return ripple(channels, domain.dim, waves=waves)


class Bomb:
    def __reduce__(self):
        return (print, ("this must never be printed",))


@pytest.fixture(autouse=True)
def host(monkeypatch):
    """A host without strangers' plugins, with the fake format."""
    monkeypatch.setattr(plugins, "distributions", lambda: [])  # installed plugins are out of sight, not switched off
    monkeypatch.delenv("INRBRIDGE_PLUGINS", raising=False)
    monkeypatch.delenv("INRBRIDGE_STRICT", raising=False)
    plugins.rescan().register(RippleFormat())
    yield plugins.registry()
    monkeypatch.undo()
    plugins.rescan()


@pytest.fixture
def file(tmp_path):
    save_field(ripple(seed=5), tmp_path / "x.safetensors")
    return tmp_path / "x.safetensors"


def test_a_saved_field_opens_as_itself(file):
    field = open_field(file)
    assert isinstance(field, RippleField) and field.format == "ripple"
    coords = torch.rand(7, 2)
    assert torch.equal(field(coords), ripple(seed=5)(coords))
    assert identify(str(file)) == "ripple"
    assert torch.equal(open_field(file, "ripple", gain=2.0).amplitude, 2 * field.amplitude)


def test_a_native_file_asks_only_the_format_it_names(file, host):
    host.register(Claimer("greedy", ".safetensors"))
    assert identify(file) == "ripple"


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(MissingFile, match=r"There is nothing at .*absent\.pt"):
        open_field(tmp_path / "absent.pt")
    with pytest.raises(FileNotFoundError):
        identify(tmp_path / "absent.pt")
    with pytest.raises(MissingFile):
        open_field(tmp_path / "absent.pt", "ripple")


def test_unknown_files_are_told_with_what_was_found(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UnknownFormat, match=r"found a file of unknown kind, 5 bytes.*Installed: .*ripple.*--format"):
        open_field(tmp_path / "notes.txt")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UnknownFormat, match=r"an empty folder"):
        open_field(tmp_path / "folder")
    torch.save({"w.x": torch.zeros(2, 3)}, tmp_path / "y.pt")
    with pytest.raises(UnknownFormat, match=r"1 tensors: w\.x \(2, 3\)"):
        open_field(tmp_path / "y.pt")


@pytest.mark.parametrize(
    ("name", "plugin"),
    [
        ("net.0.linear.weight", "siren"), ("net.net.0.0.weight", "siren"), ("FFL.b", "fourier"), ("encoder.embeddings", "ngp"),
        ("model.xyz_encoder.params", "ngp"), ("network_fn_state_dict.pts_linears.0.weight", "nerf"),
    ],
)  # fmt: skip
def test_files_of_absent_plugins_come_with_the_pip_line(tmp_path, name, plugin):
    torch.save({name: torch.zeros(4, 2)}, tmp_path / "x.pt")
    with pytest.raises(UnknownFormat, match=f"install its reader: pip install inrbridge-{plugin}"):
        open_field(tmp_path / "x.pt")


def test_containers_of_absent_plugins_come_with_the_pip_line(tmp_path):
    np.savez(tmp_path / "ckpt.npz", links=np.zeros(1), density_data=np.zeros(1))
    layers = np.empty(2, object)  # as bmild/nerf saves a list of weights: its arrays are listed by number, without running it
    layers[:] = [np.zeros((63, 4), np.float32), np.zeros(4, np.float32)]
    np.save(tmp_path / "model_000010.npy", layers, allow_pickle=True)
    assert look(tmp_path / "model_000010.npy").tensors == {"0": (63, 4), "1": (4,)}
    (tmp_path / "base.ingp").write_bytes(gzip.compress(b"\x81\xa1a\x01"))  # a MessagePack table in a frame
    for name, plugin in {"ckpt.npz": "plenoxels", "model_000010.npy": "nerf", "base.ingp": "ngp"}.items():
        with pytest.raises(UnknownFormat, match=f"This looks like an? .*: pip install inrbridge-{plugin}"):
            open_field(tmp_path / name)


def test_a_native_file_of_an_absent_format_comes_with_the_pip_line(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "x", metadata={"inrbridge": '{"format": "ngp"}'})
    with pytest.raises(UnknownFormat, match="pip install inrbridge-ngp"):
        open_field(tmp_path / "x")


def test_two_formats_that_claim_one_file_are_both_named(tmp_path, host):
    host.register(Claimer("first", ".dat", ripple()))
    host.register(type("Second", (Claimer,), {})("second", ".dat", ripple()))
    (tmp_path / "x.dat").write_bytes(b"data")
    with pytest.raises(AmbiguousFormat, match=r'"first".*"second".*--format first'):
        open_field(tmp_path / "x.dat")
    assert open_field(tmp_path / "x.dat", format="second") is host.loaded("second").answer


def test_verdicts_of_all_formats(file):
    found = {verdict.format: verdict.is_recognized for verdict in verdicts(look(file))}
    assert found["ripple"] and not found["grid"]


def test_a_format_that_fails_to_look_counts_as_no_and_is_told_once(file, host, monkeypatch, recwarn):
    class Blind(Claimer):
        def recognizes(self, probe):
            return 1 / 0

    foreign = file.with_name("foreign")
    save_file({"frequency": torch.zeros(1, 2)}, foreign)
    host.register(Blind("blind", ""))
    with pytest.warns(PluginWarning, match=r'"blind" .* failed to look at a file and is passed over: ZeroDivisionError'):
        assert identify(foreign) == "ripple"
    recwarn.clear()
    assert identify(foreign) == "ripple" and not recwarn.list
    assert [verdict.error for verdict in verdicts(look(foreign)) if verdict.format == "blind"] == [
        "ZeroDivisionError: division by zero"
    ]
    host.strict = True
    with pytest.raises(PluginError, match="failed to look"):
        identify(foreign)


def test_a_file_without_permission_is_not_a_no(file, host):
    class Locked(Claimer):
        def recognizes(self, probe):
            raise PermissionError(13, "Permission denied")

    host.register(Locked("locked", ""))
    with pytest.raises(PermissionError):
        verdicts(look(file))


def test_failures_of_open_name_path_format_distribution_and_version(tmp_path, host):
    (tmp_path / "x.dat").write_bytes(b"data")
    for cause in (KeyError("weights"), RuntimeError("shapes\ndiffer"), CannotOpen("it is torn"), MemoryError(), AssertionError()):
        host.register(Claimer("claimer", ".dat", cause))
        with pytest.raises(CannotOpen, match=r'Cannot open .*x.dat as "claimer" \(register\(\) in this session\): ') as caught:
            open_field(tmp_path / "x.dat")
        assert caught.value.__cause__ is cause and "\n" not in str(caught.value)
    save_field(build_field("grid", Box.centered(2), 1, shape=(2, 2)), tmp_path / "g")
    (tmp_path / "g").write_bytes((tmp_path / "g").read_bytes()[:-3])
    with pytest.raises(CannotOpen, match=rf'as "grid" \(inrbridge {inrbridge.__version__}\): the file is truncated'):
        open_field(tmp_path / "g")


def test_an_interrupt_is_not_a_failure_of_the_file(tmp_path, host):
    (tmp_path / "x.dat").write_bytes(b"data")
    host.register(Claimer("claimer", ".dat", KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        open_field(tmp_path / "x.dat")


def test_every_truncation_of_a_field_file_is_one_clear_sentence(file):
    whole = file.read_bytes()
    for keep in range(0, len(whole), 5):
        file.write_bytes(whole[:keep])
        with pytest.raises(CannotOpen) as caught:
            open_field(file)
        assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_flipped_bytes_raise_only_our_errors(file):
    whole = bytearray(file.read_bytes())
    for position in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[position] ^= 0x5A
        file.write_bytes(damaged)
        try:
            open_field(file)
        except InrBridgeError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("write", ["torch", "old torch", "pickle", "npy"])
def test_code_in_a_file_is_refused_and_never_run(tmp_path, capsys, write):
    path, load = tmp_path / "x.pt", {"frequency": torch.zeros(4, 2), "bomb": Bomb()}
    if write == "pickle":
        path.write_bytes(pickle.dumps(load))
    elif write == "npy":
        path = tmp_path / "x.npy"
        np.save(path, np.array([Bomb()], dtype=object), allow_pickle=True)
    else:
        torch.save(load, path, _use_new_zipfile_serialization=write == "torch")
    with pytest.raises(InrBridgeError) as caught:
        open_field(path)
    with pytest.raises(InrBridgeError):
        open_field(path, "ripple")
    assert capsys.readouterr().out == ""
    if write != "npy":
        assert isinstance(caught.value, CannotOpen) and "never runs code" in str(caught.value)


def test_unknown_and_missing_options_are_usage_errors(tmp_path, host):
    host.register(Claimer("claimer", ".dat", ripple()))
    (tmp_path / "x.dat").write_bytes(b"data")
    with pytest.raises(ConfigError, match=r'no option "zom" of `open`; expected among: flip, zoom\. Did you mean "zoom"\?'):
        open_field(tmp_path / "x.dat", zom=2)
    with pytest.raises(ConfigError, match=r'no option "generator"|no option "waves"'):
        open_field(tmp_path / "x.dat", waves=2)
    with pytest.raises(ConfigError, match='needs the option "waves"'):
        build_field("claimer", Box.centered(2), 1)
    with pytest.raises(ConfigError, match="expected among: waves"):
        build_field("claimer", Box.centered(2), 1, wave=2)
    assert ConfigError.exit_code == 2


def test_what_a_format_returns_is_checked(tmp_path, host):
    (tmp_path / "x.dat").write_bytes(b"data")
    names = ripple()
    names.channel_names = ("one",)
    wrong = [None, 3, "field", names]
    for domain, channels in [(None, 2), ("box", 2), (Box.centered(2), 0), (Box.centered(2), 1.0), (Box.centered(2), True)]:
        wrong.append(FunctionField(lambda x: x, domain, channels))
    for answer in wrong:
        host.register(Claimer("claimer", ".dat", answer))
        with pytest.raises(PluginError, match=r'"claimer" .* returned from `open` a .*, expected|with .*, expected'):
            open_field(tmp_path / "x.dat")


def test_a_field_is_stamped_where_it_can_be(tmp_path, host):
    class Frozen:
        __slots__ = ("channels", "domain")

        def __init__(self):
            self.domain, self.channels = Box.centered(2), 2

        def __call__(self, coords):
            return coords

    (tmp_path / "x.dat").write_bytes(b"data")
    host.register(Claimer("claimer", ".dat", FunctionField(lambda x: x, Box.centered(2), 2)))
    assert open_field(tmp_path / "x.dat").format == "claimer"
    host.register(Claimer("claimer", ".dat", ripple()))
    assert open_field(tmp_path / "x.dat").format == "ripple"  # what it says itself stands
    host.register(Claimer("claimer", ".dat", Frozen()))
    assert open_field(tmp_path / "x.dat").channels == 2


def test_saving_what_has_no_format_is_refused(tmp_path, host):
    with pytest.raises(CannotSave, match="belongs to no format"):
        save_field(FunctionField(lambda x: x, Box.centered(2), 2), tmp_path / "x")
    with pytest.raises(CannotSave, match="Cannot write"):
        save_field(ripple(), tmp_path / "no" / "folder")

    class Clumsy(Claimer):
        def save(self, field, path):
            raise ValueError("no")

    host.register(Clumsy("clumsy", ".dat"))
    field = FunctionField(lambda x: x, Box.centered(2), 2)
    field.format = "clumsy"
    with pytest.raises(CannotSave, match=r'as "clumsy".*ValueError: no'):
        save_field(field, tmp_path / "x")


def test_building_is_repeatable_and_checked(host):
    first, second = (build_field("ripple", Box.unit(3), 2, generator=torch.Generator().manual_seed(1), waves=6) for _ in range(2))
    assert torch.equal(first.amplitude, second.amplitude) and first.amplitude.shape == (6, 2) and first.format == "ripple"
    with pytest.raises(UnknownFormat, match="There is no format"):
        build_field("nothing", Box.unit(1), 1)
    with pytest.raises(PluginError, match='Cannot build a field of "ripple"'):
        build_field("ripple", Box.unit(1), 1, waves="six")


def test_public_names_come_from_the_package():
    for name in (
        "Format",
        "Probe",
        "hookimpl",
        "register",
        "read_native",
        "write_native",
        "open_field",
        "identify",
        "save_field",
    ):
        assert name in inrbridge.__all__ and getattr(inrbridge, name)
