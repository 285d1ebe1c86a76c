import stat

from django.core.mail import EmailMessage

from accounts.mail import PrivateFiles


def test_mail_files_are_for_their_owner_alone(tmp_path):
    folder = tmp_path / "mail"
    mail = PrivateFiles(file_path=str(folder))

    assert mail.send_messages([EmailMessage("Hello", "A link.", "a@example.com", ["b@example.com"])]) == 1

    (written,) = folder.iterdir()
    assert "A link." in written.read_text()
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
