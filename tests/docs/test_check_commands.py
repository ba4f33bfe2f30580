"""The commands of a document run in one shell, in order, up to the first that fails."""

import check_commands
import pytest

DOCUMENT = """
```sh
NAME=faces
mkdir $NAME
```
Not run:
```text
false
```
```sh
cd $NAME && pwd > where.txt
```
"""


def test_blocks_share_one_shell(tmp_path, capfd):
    assert check_commands.run_blocks(check_commands.shell_blocks(DOCUMENT), tmp_path)
    assert (tmp_path / "faces" / "where.txt").read_text().strip() == str(tmp_path / "faces")
    assert "$ mkdir $NAME" in capfd.readouterr().out


@pytest.mark.parametrize("failing", ["false", "false | cat"])
def test_the_first_failing_command_ends_the_check(failing, tmp_path):
    blocks = ["touch first\n", f"{failing}\n", "touch third\n"]
    assert not check_commands.run_blocks(blocks, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["first"]
