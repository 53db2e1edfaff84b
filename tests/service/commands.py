"""Commands that tests run in their own process."""

from typer.testing import CliRunner

from autoprune.service.cli.app import app


def run(*arguments: object, code: int = 0) -> tuple[str, str]:
    """Run a command that ends with this code; return what it wrote on stdout and stderr."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout, result.stderr


def said(*arguments: object, code: int = 0) -> str:
    """Run a command that ends with this code; return what it wrote on stdout, or on stderr where it fails."""
    stdout, stderr = run(*arguments, code=code)
    return stderr if code else stdout
