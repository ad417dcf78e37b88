# SPDX-License-Identifier: Apache-2.0
"""Mounts and encryption, from tables as the kernel writes them; what cannot be seen is unknown."""

import os
from pathlib import Path

import pytest

from client.doctor.volumes import Volume, is_encrypted, volume_of

TABLE = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
23 22 253:1 / {root}/srv rw,nosuid - ext4 /dev/mapper/srv rw
24 22 253:2 / {root}/srv/images ro,nosuid shared:9 - xfs /dev/mapper/images rw
25 22 0:40 / {root}/with\\040blank rw - nfs4 nas:/export ro,vers=4.2
26 22 0:41 / {root}/srv/images rw - tmpfs tmpfs rw
"""


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    for name in ("srv/images/deep", "with blank"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "table").write_text(TABLE.format(root=tmp_path.resolve()))
    return tmp_path / "table"


def found(mounts: Path, name: str) -> Volume:
    volume = volume_of(mounts.parent / name, mounts=mounts)
    assert volume
    return volume


def test_a_folder_lies_on_the_nearest_mount_above_it_and_the_newest_there(mounts: Path) -> None:
    assert found(mounts, "srv").device == "253:1"
    assert found(mounts, "srv/images/deep").kind == "tmpfs"
    assert found(mounts, ".").device == "254:0"


def test_blanks_in_a_mount_point_and_a_volume_that_is_read_only_itself_are_read(mounts: Path) -> None:
    volume = found(mounts, "with blank")
    assert (volume.device, volume.read_only) == ("0:40", True)


def block(devices: Path, name: str, *, uuid: str = "", below: tuple[Path, ...] = ()) -> Path:
    device = devices / name
    (device / "slaves").mkdir(parents=True)
    if uuid:
        (device / "dm").mkdir()
        (device / "dm" / "uuid").write_text(uuid + "\n")
    for each in below:
        os.symlink(each, device / "slaves" / each.name.replace(":", "-"))
    return device


def test_dm_crypt_is_found_directly_and_below_other_layers(mounts: Path, tmp_path: Path) -> None:
    devices = tmp_path / "devices"
    disk = block(devices, "8:0")
    crypt = block(devices, "253:9", uuid="CRYPT-LUKS2-0123", below=(disk,))
    block(devices, "253:1", uuid="LVM-abc", below=(crypt,))
    block(devices, "254:0", below=(disk,))
    assert is_encrypted(found(mounts, "srv"), devices=devices) is True
    assert is_encrypted(found(mounts, "."), devices=devices) is False


def test_what_is_no_block_device_is_unknown(mounts: Path, tmp_path: Path) -> None:
    assert is_encrypted(found(mounts, "with blank"), devices=tmp_path / "devices") is None


def test_this_machines_own_table_is_read(tmp_path: Path) -> None:
    assert volume_of(tmp_path) is not None
