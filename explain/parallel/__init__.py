"""Long work in shards: serial by default, the same call on a Dask client, resumed from disk after any end.

No model may enter: what is kept hangs on digests alone.
"""

from explain.parallel.digest import Undigestable, fingerprint
from explain.parallel.many import explain_many
from explain.parallel.store import Stale, Store
from explain.parallel.tasks import ClusterLost, run

__all__ = ["ClusterLost", "Stale", "Store", "Undigestable", "explain_many", "fingerprint", "run"]
