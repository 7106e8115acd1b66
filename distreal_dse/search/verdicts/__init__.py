"""What short runs say: races, the pilot, verification, and verifying a front again."""

from distreal_dse.search.verdicts._pilot import pilot_shapes, run_pilot, table_pilot, vector_pilot
from distreal_dse.search.verdicts._race import PairedGains, common_luck, pooled_variance
from distreal_dse.search.verdicts._reverification import Claim, Reverified, reverify
from distreal_dse.search.verdicts._shapes import shape_effect
from distreal_dse.search.verdicts._verification import Candidate, Verified, verify

__all__ = [
    "Candidate",
    "Claim",
    "PairedGains",
    "Reverified",
    "Verified",
    "common_luck",
    "pilot_shapes",
    "pooled_variance",
    "reverify",
    "run_pilot",
    "shape_effect",
    "table_pilot",
    "vector_pilot",
    "verify",
]
