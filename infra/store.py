"""The object store: everything Slipway keeps, under `file://` and `s3://` alike.

One condition is relied on, create-if-absent by one single put, because it is the one that every S3 server keeps
(AWS, Ceph, Swift). A mutable name is therefore a sequence of entries, each created if absent, and the newest is its
value. `create` answers whether *this* caller's bytes are the ones stored, so an entry carries something of its
writer's own (a nonce, a time, a content digest) wherever two writers must not both believe they won.
"""

import os
import random
import shutil
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlparse

from infra.errors import SlipwayError, WrongInput

ASIDE = ".aside-"
"""How the names of unfinished files start."""
TRIES = 9
"""How often an S3 server is asked before a failure counts: where one request in ten fails, so do 1e-9 of all calls."""


class NotFound(KeyError):
    """No object of that key."""


class Store(ABC):
    """Keys are `/`-separated relative paths; values are bytes. Raises WrongInput for a key that leaves the store."""

    uri: str

    @abstractmethod
    def get(self, key: str) -> bytes:
        """The object's bytes. Raises NotFound."""

    @abstractmethod
    def put(self, key: str, data: bytes | memoryview) -> None:
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
    def modified(self, key: str) -> float:
        """When the object was last written, by the store's own clock, in seconds since 1970. Raises NotFound."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove the object; an absent one is no error."""

    def check(self) -> None:  # noqa: B027 (a folder is made when it is first written)
        """Raises WrongInput for a store that could never do, before anything is done in it."""

    def sweep(self, prefix: str) -> None:  # noqa: B027 (S3 shows no unfinished object)
        """Remove what killed writers left unfinished below the folder `prefix`, where nobody writes any more."""

    @abstractmethod
    def upload(self, path: Path, key: str) -> None:
        """Write or overwrite `key` with a file's content, streamed."""

    @abstractmethod
    def local_path(self, key: str) -> Path:
        """A file on this machine with the object's bytes (read-only: it may be the object). Raises NotFound."""

    @abstractmethod
    def local_folder(self, prefix: str, names: Iterable[str]) -> Path:
        """A folder on this machine that shows `prefix/name` as `name`. Raises NotFound when one is missing."""


def checked(key: str) -> str:
    """The key, or prefix of keys. Raises WrongInput for one that leaves the store: keys hold names that users type."""
    if key.startswith("/") or ".." in key.split("/") or "\0" in key:
        raise WrongInput(f"name {key!r}: leads out of the object store; leave out '..', a leading '/' and NUL")
    return key


class FolderStore(Store):
    """Objects as files. An object is written aside, fsynced, and renamed (put) or hard-linked (create) into place."""

    def __init__(self, folder: Path):
        self.folder = folder.absolute()
        self.uri = self.folder.as_uri()

    def _path(self, key: str) -> Path:
        if not key:
            raise ValueError("an object needs a key")
        return self.folder / checked(key)

    def _refusal(self, error: OSError, doing: str) -> WrongInput:
        return WrongInput(
            f"store {self.folder}: cannot {doing} ({error.strerror}); "
            "make it readable and writable or set SLIPWAY_STORE to a folder or s3:// address that is"
        )

    def _aside(self, path: Path, data: bytes | memoryview | Path) -> Path:
        aside = path.with_name(f"{ASIDE}{uuid.uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = open(aside, "xb")  # noqa: SIM115 (closed below; not tempfile: its mode 600 overrules the umask)
        except OSError as error:
            raise self._refusal(error, "write") from error
        try:
            with file:
                if isinstance(data, Path):
                    with open(data, "rb") as source:
                        shutil.copyfileobj(source, file, 1 << 20)
                else:
                    file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except BaseException as error:
            aside.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise SlipwayError(f"store {self.folder}: {error.strerror} while writing {path.name}") from error
            raise
        return aside

    def get(self, key: str) -> bytes:
        try:
            return self._path(key).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise NotFound(key) from None
        except OSError as error:
            raise self._refusal(error, f"read {key}") from error

    def put(self, key: str, data: bytes | memoryview) -> None:
        path = self._path(key)
        os.replace(self._aside(path, data), path)

    def create(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        if path.exists():
            return self.get(key) == data
        aside = self._aside(path, data)
        try:
            os.link(aside, path)  # the atomic create-if-absent of a POSIX folder, NFS included
            return True
        except FileExistsError:
            return self.get(key) == data
        except OSError as error:
            raise self._refusal(error, "make the hard link that commits an entry") from error
        finally:
            aside.unlink()

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        root = self.folder / (checked(prefix) if prefix.endswith("/") else checked(prefix).rpartition("/")[0])
        keys = []
        for folder, _, names in os.walk(root):
            relative = Path(folder).relative_to(self.folder).as_posix()
            for name in names:
                key = name if relative == "." else f"{relative}/{name}"
                if key.startswith(prefix) and key > after and not name.startswith(ASIDE):
                    keys.append(key)
        return iter(sorted(keys))

    def modified(self, key: str) -> float:
        try:
            return self._path(key).stat().st_mtime
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(key) from None

    def delete(self, key: str) -> None:
        try:
            self._path(key).unlink()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            pass  # no object has that key
        except OSError as error:
            raise self._refusal(error, f"delete {key}") from error

    def sweep(self, prefix: str) -> None:
        for path in self._path(prefix).rglob(f"{ASIDE}*"):
            path.unlink(missing_ok=True)

    def upload(self, path: Path, key: str) -> None:
        target = self._path(key)
        os.replace(self._aside(target, path), target)

    def local_path(self, key: str) -> Path:
        path = self._path(key)
        if not path.is_file():
            raise NotFound(key)
        return path

    def local_folder(self, prefix: str, names: Iterable[str]) -> Path:
        for name in names:
            self.local_path(f"{prefix}/{name}")
        return self._path(prefix)


class S3Store(Store):
    """Objects in a bucket, through boto3; `cache` holds downloads, named by key and ETag."""

    def __init__(self, bucket: str, prefix: str, cache: Path):
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError

        self.bucket, self.prefix, self.cache = bucket, prefix.strip("/"), cache
        self.uri = f"s3://{bucket}/{self.prefix}".rstrip("/")
        # Endpoint, region and keys come from boto3's own chain (AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID, ~/.aws).
        # Retries with jitter. Not `adaptive`: after a few 503 it holds back every later request of the process too.
        try:
            self.client = boto3.client("s3", config=Config(retries={"total_max_attempts": TRIES, "mode": "standard"}))
        except (BotoCoreError, ValueError) as error:
            raise WrongInput(f"store {self.uri}: {error}; check the AWS_* settings in use") from error
        self._bucket_seen = False

    def check(self) -> None:
        """Raises WrongInput for a bucket that is missing, does not know our keys, or is versioned."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            versioning = self.client.get_bucket_versioning(Bucket=self.bucket).get("Status")
        except ClientError as error:
            if error.response.get("Error", {}).get("Code", "") in ("AccessDenied", "403", "NotImplemented"):
                return  # who may not ask that may be allowed to read and write
            raise self._translate(error, "") from error
        except BotoCoreError as error:
            raise self._translate(error, "") from error
        if versioning == "Enabled":
            raise WrongInput(
                f"store {self.uri}: the bucket is versioned, where servers ignore create-if-absent: two writers "
                "could both win; suspend its versioning or change SLIPWAY_STORE"
            )

    def _key(self, key: str) -> str:
        checked(key)
        return f"{self.prefix}/{key}" if self.prefix else key

    def _translate(self, error: Exception, key: str) -> Exception:
        from botocore.exceptions import (
            ClientError,
            EndpointConnectionError,
            NoCredentialsError,
            ParamValidationError,
            PartialCredentialsError,
        )

        if isinstance(error, NoCredentialsError | PartialCredentialsError):
            return WrongInput(f"store {self.uri}: {error}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
        if isinstance(error, ParamValidationError):
            return WrongInput(f"store {self.uri}: {error}; change SLIPWAY_STORE")
        if isinstance(error, ClientError):
            code = error.response.get("Error", {}).get("Code", "")
            if code == "404" and not self._bucket_exists():
                code = "NoSuchBucket"  # the answer to a HEAD has no body that could tell a missing bucket from a key
            if code in ("NoSuchKey", "404", "NotFound"):
                return NotFound(key)
            if code == "NoSuchBucket":
                return WrongInput(f"store {self.uri}: the bucket does not exist; create it or change SLIPWAY_STORE")
            if code in ("InvalidAccessKeyId", "SignatureDoesNotMatch"):
                return WrongInput(
                    f"store {self.uri}: wrong credentials ({code}); check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                )
            if code in ("AccessDenied", "403"):
                return WrongInput(
                    f"store {self.uri}: access refused ({code}); let the user of AWS_ACCESS_KEY_ID read, write, delete "
                    "and list there, or change SLIPWAY_STORE"
                )
        if isinstance(error, EndpointConnectionError):
            return SlipwayError(f"store {self.uri}: no answer ({error}); check AWS_ENDPOINT_URL_S3 and the network")
        return SlipwayError(f"store {self.uri}: {error} (object {key})")

    def _bucket_exists(self) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError

        if not self._bucket_seen:
            try:
                self.client.head_bucket(Bucket=self.bucket)
            except BotoCoreError:
                return True  # it went away between the two questions: nothing says that the bucket is not there
            except ClientError as error:
                return error.response.get("Error", {}).get("Code", "") != "404"
            self._bucket_seen = True
        return True

    def _call(self, operation: str, key: str, **arguments: object) -> dict:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return getattr(self.client, operation)(Bucket=self.bucket, Key=self._key(key), **arguments)
        except (ClientError, BotoCoreError) as error:
            raise self._translate(error, key) from error

    def get(self, key: str) -> bytes:
        from botocore.exceptions import BotoCoreError

        attempt = 0
        while True:
            answer = self._call("get_object", key)
            try:
                return answer["Body"].read()
            except BotoCoreError as error:  # the connection was lost in the middle of the body: boto3 leaves that to us
                attempt += 1
                if attempt == TRIES:
                    raise self._translate(error, key) from error
            _pause(attempt)

    def put(self, key: str, data: bytes | memoryview) -> None:
        self._call("put_object", key, Body=bytes(data))

    def create(self, key: str, data: bytes) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError

        for attempt in range(TRIES):
            try:
                self.client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data, IfNoneMatch="*")
                return True
            except ClientError as error:
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
                if status == 412:  # ours if the answer to our own first try was lost: the bytes settle it
                    return self.get(key) == data
                if status != 409:
                    raise self._translate(error, key) from error
                _pause(attempt)  # 409: two conditional writes met; try again
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

    def modified(self, key: str) -> float:
        return self._call("head_object", key)["LastModified"].timestamp()

    def delete(self, key: str) -> None:
        self._call("delete_object", key)

    def upload(self, path: Path, key: str) -> None:
        from boto3.exceptions import S3UploadFailedError
        from botocore.exceptions import BotoCoreError

        try:
            self.client.upload_file(str(path), self.bucket, self._key(key))
        except S3UploadFailedError as error:
            cause = error.__context__ if isinstance(error.__context__, Exception) else error  # what the server said
            raise self._translate(cause, key) from error
        except BotoCoreError as error:
            raise self._translate(error, key) from error

    def local_path(self, key: str) -> Path:
        from botocore.exceptions import BotoCoreError, ClientError

        head = self._call("head_object", key)
        path = self.cache / "objects" / head["ETag"].strip('"') / Path(key).name
        if not path.is_file() or path.stat().st_size != head["ContentLength"]:  # a crash may leave a cached file short
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = path.with_name(f"{ASIDE}{uuid.uuid4().hex}")
            try:
                self.client.download_file(self.bucket, self._key(key), str(aside))
                os.replace(aside, path)
            except (ClientError, BotoCoreError) as error:
                raise self._translate(error, key) from error
            finally:
                aside.unlink(missing_ok=True)
        return path

    def local_folder(self, prefix: str, names: Iterable[str]) -> Path:
        folder = self.cache / "folders" / checked(prefix)
        for name in names:
            source = self.local_path(f"{prefix}/{name}")
            target = folder / checked(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            aside = target.with_name(f"{ASIDE}{uuid.uuid4().hex}")
            aside.symlink_to(source)  # set anew each time: what the folder shows is what the store holds now
            os.replace(aside, target)
        return folder


def _pause(attempt: int) -> None:
    time.sleep(random.uniform(0.5, 1.5) * 0.05 * 2**attempt)


def open_store(uri: str, cache: Path | None = None) -> Store:
    """The store at a folder path, `file://` or `s3://bucket/prefix`. Raises WrongInput for any other scheme.

    `cache` keeps what S3 holds and a library wants as files; by default the account's own, never the shared /tmp.
    """
    parts = urlparse(uri)
    if parts.scheme == "s3":
        if not parts.netloc:
            raise WrongInput(f"SLIPWAY_STORE: '{uri}' names no bucket; write s3://BUCKET/PREFIX")
        return S3Store(parts.netloc, parts.path, cache or Path.home() / ".cache" / "slipway")
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise WrongInput(f"SLIPWAY_STORE: '{uri}' is not a path on this machine; write file:///FOLDER")
        return FolderStore(Path(unquote(parts.path)))
    if not parts.scheme:
        return FolderStore(Path(uri).expanduser())
    raise WrongInput(f"SLIPWAY_STORE: scheme '{parts.scheme}' of '{uri}' is unknown; use a folder, file:// or s3://")
