"""The object store: everything Slipway keeps, under `file://` and `s3://` alike.

One condition is relied on, create-if-absent by one single put, because it is the one that every S3 server keeps
(AWS, Ceph, Swift). A mutable name is therefore a sequence of entries, each created if absent, and the newest is its
value. `create` answers whether *this* caller's bytes are the ones stored, so an entry carries something of its
writer's own (a nonce, a time, a content digest) wherever two writers must not both believe they won.
"""

import os
import shutil
import tempfile
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlparse

from infra.errors import SlipwayError, WrongInput


class NotFound(KeyError):
    """No object of that key."""


class Store(ABC):
    """Keys are `/`-separated relative paths; values are bytes."""

    uri: str

    @abstractmethod
    def get(self, key: str) -> bytes:
        """The object's bytes. Raises NotFound."""

    @abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Write or overwrite; a reader sees the old object or the new one, never a part."""

    @abstractmethod
    def create(self, key: str, data: bytes) -> bool:
        """Write if the key is absent. True when the object now there holds exactly these bytes."""

    @abstractmethod
    def exists(self, key: str) -> bool: ...

    @abstractmethod
    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """Keys that start with `prefix` and sort after the key `after`, sorted."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove the object; an absent one is no error."""

    @abstractmethod
    def upload(self, path: Path, key: str) -> None:
        """Write or overwrite `key` with a file's content, streamed."""

    @abstractmethod
    def local_path(self, key: str) -> Path:
        """A file on this machine with the object's bytes (read-only: it may be the object). Raises NotFound."""


class FolderStore(Store):
    """Objects as files. An object is written aside, fsynced, and renamed (put) or hard-linked (create) into place."""

    def __init__(self, folder: Path):
        self.folder = folder.absolute()
        self.uri = self.folder.as_uri()

    def _path(self, key: str) -> Path:
        path = self.folder / key
        if not key or key.startswith("/") or ".." in Path(key).parts:
            raise ValueError(f"object key {key!r} leaves the store")
        return path

    def _aside(self, path: Path, data: bytes | Path) -> str:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, aside = tempfile.mkstemp(prefix=".aside-", dir=path.parent)
        except OSError as error:
            raise WrongInput(
                f"workspace store {self.folder}: cannot write ({error.strerror}); "
                "make it writable or set SLIPWAY_STORE to a folder or s3:// address that is"
            ) from error
        try:
            with os.fdopen(handle, "wb") as file:
                if isinstance(data, Path):
                    with open(data, "rb") as source:
                        shutil.copyfileobj(source, file, 1 << 20)
                else:
                    file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(aside, 0o644)  # mkstemp's 600 would hide the workspace from a team's other accounts
        except OSError as error:
            os.unlink(aside)
            raise SlipwayError(f"workspace store {self.folder}: {error.strerror} while writing {path.name}") from error
        return aside

    def get(self, key: str) -> bytes:
        try:
            return self._path(key).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise NotFound(key) from None

    def put(self, key: str, data: bytes) -> None:
        path = self._path(key)
        os.replace(self._aside(path, data), path)

    def create(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        if path.exists():
            return path.read_bytes() == data
        aside = self._aside(path, data)
        try:
            os.link(aside, path)  # the atomic create-if-absent of a POSIX folder, NFS included
            return True
        except FileExistsError:
            return path.read_bytes() == data
        finally:
            os.unlink(aside)

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        root = self.folder / (prefix if prefix.endswith("/") else prefix.rpartition("/")[0])
        keys = []
        for folder, _, names in os.walk(root):
            relative = Path(folder).relative_to(self.folder).as_posix()
            for name in names:
                key = name if relative == "." else f"{relative}/{name}"
                if key.startswith(prefix) and key > after and not name.startswith(".aside-"):
                    keys.append(key)
        return iter(sorted(keys))

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def upload(self, path: Path, key: str) -> None:
        target = self._path(key)
        os.replace(self._aside(target, path), target)

    def local_path(self, key: str) -> Path:
        path = self._path(key)
        if not path.is_file():
            raise NotFound(key)
        return path


class S3Store(Store):
    """Objects in a bucket, through boto3; `cache` holds downloads, named by key and ETag."""

    def __init__(self, bucket: str, prefix: str, cache: Path):
        import boto3
        from botocore.config import Config

        self.bucket, self.prefix, self.cache = bucket, prefix.strip("/"), cache
        self.uri = f"s3://{bucket}/{self.prefix}".rstrip("/")
        # Endpoint, region and keys come from boto3's own chain (AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID, ~/.aws).
        self.client = boto3.client("s3", config=Config(retries={"max_attempts": 8, "mode": "adaptive"}))

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def _translate(self, error: Exception, key: str) -> Exception:
        from botocore.exceptions import ClientError

        if isinstance(error, ClientError):
            code = error.response.get("Error", {}).get("Code", "")
            if code in ("NoSuchKey", "404", "NotFound"):
                return NotFound(key)
            if code == "NoSuchBucket":
                return WrongInput(f"store {self.uri}: the bucket does not exist; create it or change SLIPWAY_STORE")
            if code in ("AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch"):
                return WrongInput(f"store {self.uri}: access refused ({code}); check the AWS credentials in use")
        return SlipwayError(f"store {self.uri}: {error} (object {key})")

    def _call(self, operation: str, key: str, **arguments: object) -> dict:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return getattr(self.client, operation)(Bucket=self.bucket, Key=self._key(key), **arguments)
        except (ClientError, BotoCoreError) as error:
            raise self._translate(error, key) from error

    def get(self, key: str) -> bytes:
        return self._call("get_object", key)["Body"].read()

    def put(self, key: str, data: bytes) -> None:
        self._call("put_object", key, Body=data)

    def create(self, key: str, data: bytes) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError

        for _ in range(8):
            try:
                self.client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data, IfNoneMatch="*")
                return True
            except ClientError as error:
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
                if status == 412:  # ours if the answer to our own first try was lost: the bytes settle it
                    return self.get(key) == data
                if status != 409:  # 409: two conditional writes met; try again
                    raise self._translate(error, key) from error
            except BotoCoreError as error:
                raise self._translate(error, key) from error
        raise SlipwayError(f"store {self.uri}: object {key} kept answering 409; try again later")

    def exists(self, key: str) -> bool:
        try:
            self._call("head_object", key)
            return True
        except NotFound:
            return False

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        from botocore.exceptions import BotoCoreError, ClientError

        arguments = {"Bucket": self.bucket, "Prefix": self._key(prefix)}
        if after:
            arguments["StartAfter"] = self._key(after)
        try:
            for page in self.client.get_paginator("list_objects_v2").paginate(**arguments):
                for item in page.get("Contents", ()):
                    yield item["Key"][len(self.prefix) + 1 if self.prefix else 0 :]
        except (ClientError, BotoCoreError) as error:
            raise self._translate(error, prefix) from error

    def delete(self, key: str) -> None:
        self._call("delete_object", key)

    def upload(self, path: Path, key: str) -> None:
        from boto3.exceptions import S3UploadFailedError

        try:
            self.client.upload_file(str(path), self.bucket, self._key(key))
        except S3UploadFailedError as error:
            raise SlipwayError(f"store {self.uri}: {error}") from error

    def local_path(self, key: str) -> Path:
        tag = self._call("head_object", key)["ETag"].strip('"')
        path = self.cache / tag / Path(key).name
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = path.with_name(f".aside-{uuid.uuid4().hex}")
            self.client.download_file(self.bucket, self._key(key), str(aside))
            os.replace(aside, path)
        return path


def open_store(uri: str, cache: Path | None = None) -> Store:
    """The store at a folder path, `file://` or `s3://bucket/prefix`. Raises WrongInput for any other scheme."""
    parts = urlparse(uri)
    if parts.scheme == "s3":
        return S3Store(parts.netloc, parts.path, cache or Path(tempfile.gettempdir()) / "slipway-cache")
    if parts.scheme == "file":
        return FolderStore(Path(unquote(parts.path)))
    if not parts.scheme:
        return FolderStore(Path(uri))
    raise WrongInput(f"SLIPWAY_STORE: scheme '{parts.scheme}' of '{uri}' is unknown; use a folder, file:// or s3://")
