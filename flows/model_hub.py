"""A published model of the Hugging Face hub, named OWNER/NAME or OWNER/NAME@REVISION in `from:`, as a folder here.

Only configuration, tokenizer and safetensors are fetched. What was fetched is used without a network too.
"""

import re
from pathlib import Path

from infra.errors import SlipwayError, WrongInput

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w.-]+)?")
FILES = ("*.json", "*.txt", "*.safetensors")
TIMEOUT_S = 3.0


def fetch_model(address: str, cache: Path, where: str) -> Path:
    """The folder of a published model. where: the field that names it, for errors.

    Raises WrongInput for a model that is not on the hub, SlipwayError where the hub cannot be reached.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    name, _, revision = address.partition("@")
    commit, problem = revision or None, ""
    try:
        commit = HfApi().model_info(name, revision=revision or None, timeout=TIMEOUT_S).sha
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", 0)
        if status in (401, 403, 404):
            raise WrongInput(
                f"{where}: '{address}' is no folder here, and no model on the hub that is open to you; check the name"
            ) from None
        problem = f"answered {status}"
    except Exception as error:  # its HTTP library's own, which is another one in each version
        problem = type(error).__name__
    try:
        found = snapshot_download(
            name,
            revision=commit,
            cache_dir=str(cache),
            allow_patterns=list(FILES),
            ignore_patterns=["*/*"],
            local_files_only=bool(problem),
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        role = where.rpartition(".")[2]
        raise SlipwayError(
            f"{where}: '{address}' is no folder here, and the hub cannot be reached "
            f"({problem or type(error).__name__}); "
            f"give a folder with config.json, tokenizer.json and .safetensors files: --set {role}=PATH"
        ) from None
    return Path(found)
