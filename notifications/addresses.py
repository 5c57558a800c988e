"""One e-mail address, in the form in which mail is sent to it."""

import re

from email_validator import EmailNotValidError, validate_email


class UnusableAddress(ValueError):
    """No mail can be sent to it. The message says why, and holds nothing of the address."""


def mailbox(text: str) -> str:
    """Return a producer's text as one address in ASCII, its domain by IDNA 2008.

    Raises:
        UnusableAddress: it is not exactly one address; or one whose local part is quoted or not
            ASCII, or that names no public domain: mail servers differ in what they make of those.
    """
    try:
        address = validate_email(
            text.strip(" "), check_deliverability=False, allow_smtputf8=False, test_environment=True
        )
    except EmailNotValidError as error:
        # What follows in its sentence may be the address's own.
        raise UnusableAddress(re.split(r"[:(]", str(error))[0].strip(" .")) from None
    if "=?" in address.local_part:  # Django's backend would write to what that decodes to
        raise UnusableAddress("The part before the @-sign looks like an encoded word (RFC 2047)")
    assert address.ascii_email is not None  # since SMTPUTF8 is not allowed
    return address.ascii_email
