"""The official DeepLab models: where they are said to be, how they are fetched, and what belongs to them."""

from __future__ import annotations

from .acquisition import FetchOptions as FetchOptions
from .catalogue import Catalogue as Catalogue
from .catalogue import OfficialModel as OfficialModel
from .catalogue import read_catalogue as read_catalogue
from .download import Limits as Limits
from .fetching import FetchResult as FetchResult
from .fetching import fetch_model as fetch_model
from .quantities import describe_size as describe_size
from .record import ModelRecord as ModelRecord
from .record import find_damage as find_damage
from .record import read_record as read_record
from .server_check import ServerState as ServerState
