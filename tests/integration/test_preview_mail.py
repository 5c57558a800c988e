"""What a person sees who looks at the cancellation e-mail."""

import email
from email.message import EmailMessage
from email.policy import default
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command


def preview(*arguments: str) -> list[Path]:
    output = StringIO()
    call_command("preview_mail", *arguments, stdout=output)
    return [Path(line) for line in output.getvalue().splitlines()]


def read(file: Path) -> EmailMessage:
    message = email.message_from_bytes(file.read_bytes(), policy=default)
    assert isinstance(message, EmailMessage)
    return message


class TestPreviewMail:
    def test_it_writes_the_mail_as_it_is_sent_and_its_page(self, tmp_path: Path) -> None:
        whole, page = preview("--locale", "en", "--folder", str(tmp_path))
        assert sorted(tmp_path.iterdir()) == [whole, page]
        assert (whole.name, page.name) == ("cancellation-en.eml", "cancellation-en.html")
        message = read(whole)
        assert message["Subject"] == "Confirmation of your cancellation"
        assert message["To"] == "traveller@example.com"
        assert message["Message-ID"] == "<preview@example.com>"
        assert message["Auto-Submitted"] == "auto-generated"
        assert message.get_content_type() == "multipart/alternative"
        text, html = message.iter_parts()
        assert [text.get_content_type(), html.get_content_type()] == ["text/plain", "text/html"]
        assert "Refund: €150.00" in text.get_content()
        assert html.get_content().replace("\r\n", "\n") == page.read_text(encoding="utf-8")

    def test_the_mail_has_no_defects_and_ends_its_lines_as_mail_does(self, tmp_path: Path) -> None:
        whole, _ = preview("--locale", "fr", "--folder", str(tmp_path))
        message = read(whole)
        assert not [part.defects for part in message.walk() if part.defects]
        assert not [value.defects for value in message.values() if value.defects]
        written = whole.read_bytes()
        assert written.count(b"\n") == written.count(b"\r\n") > 0

    def test_it_is_french_unless_told_otherwise(self, tmp_path: Path) -> None:
        whole, page = preview("--folder", str(tmp_path))
        assert whole.name == "cancellation-fr.eml"
        assert read(whole)["Subject"] == "Confirmation de votre annulation"
        assert '<html lang="fr"' in page.read_text(encoding="utf-8")

    def test_without_a_refund_it_speaks_of_none(self, tmp_path: Path) -> None:
        _, page = preview("--locale", "en", "--folder", str(tmp_path))
        _, without = preview("--locale", "en", "--no-refund", "--folder", str(tmp_path))
        assert without.name == "cancellation-en-no-refund.html"
        assert "Refund" in page.read_text(encoding="utf-8")
        assert "Refund" not in without.read_text(encoding="utf-8")

    def test_a_part_of_a_booking_is_told_as_one(self, tmp_path: Path) -> None:
        options = ("--locale", "en", "--folder", str(tmp_path))
        whole, part = preview(*options, "--remaining", "3")
        assert whole.name == "cancellation-en-remaining-3.eml"
        assert read(whole)["Subject"] == "Confirmation of your partial cancellation"
        assert "your booking keeps 3 seats" in part.read_text(encoding="utf-8")
        _, all_of_it = preview(*options, "--remaining", "0", "--no-refund")
        assert all_of_it.name == "cancellation-en-remaining-0-no-refund.html"
        assert "Your booking has been cancelled." in all_of_it.read_text(encoding="utf-8")
        with pytest.raises(CommandError, match="--remaining is -1"):
            preview(*options, "--remaining", "-1")

    def test_a_region_has_files_of_its_own(self, tmp_path: Path) -> None:
        whole, page = preview("--locale", "fr_CH", "--folder", str(tmp_path / "new" / "folder"))
        assert whole.parent == tmp_path / "new" / "folder"
        assert (whole.name, page.name) == ("cancellation-fr_ch.eml", "cancellation-fr_ch.html")

    def test_a_locale_names_no_folder(self, tmp_path: Path) -> None:
        preview("--locale", "fr-../../../x", "--folder", str(tmp_path / "in"))
        assert [file.name for file in tmp_path.iterdir()] == ["in"]

    def test_files_go_under_var_by_default(self, tmp_path: Path, settings: Any) -> None:
        settings.VAR_DIR = tmp_path
        assert {file.parent for file in preview()} == {tmp_path / "mail" / "preview"}

    @pytest.mark.parametrize("locale", ["de", "xx-YY", "<script>", ""])
    def test_an_unknown_locale_is_an_error_that_names_those_on_offer(
        self, locale: str, tmp_path: Path
    ) -> None:
        with pytest.raises(CommandError, match="give one of en, fr,") as refused:
            preview("--locale", locale, "--folder", str(tmp_path))
        assert repr(locale) in str(refused.value)
        assert not list(tmp_path.iterdir())

    def test_a_folder_that_cannot_be_made_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(CommandError, match=r"--folder .*file: File exists"):
            preview("--folder", str(tmp_path / "file"))
