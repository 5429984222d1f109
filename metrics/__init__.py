"""Metrics: pure formulas over features (`METRICS`), and the perception that measures the features."""

from metrics.appearance.appearance_consistency import APPEARANCE_CONSISTENCY, APPEARANCE_CONSISTENCY_UPSTREAM
from metrics.appearance.appearance_error import LPIPS_TO_TRUTH, SSIM_TO_TRUTH, TRUE_APPEARANCE_ERROR
from metrics.appearance.identity import IDENTITY_BY_PART, IDENTITY_EMBEDDED, IDENTITY_MASKED
from metrics.appearance.leakage import (
    APPEARANCE_LEAKAGE,
    APPEARANCE_LEAKAGE_EMBEDDED,
    LAYOUT_LEAKAGE,
    VIEWPOINT_LEAKAGE,
)
from metrics.appearance.subject_mask import SUBJECT_KEPT, SUBJECT_LEAKAGE
from metrics.appearance.text_similarity import TEXT_SIMILARITY, TEXT_SIMILARITY_UPSTREAM
from metrics.features import Candidates, Features, Source, Truth, VideoFeatures
from metrics.metric import Metric
from metrics.motion.centred_agreement import ACTION_RETRIEVAL, MOTION_AGREEMENT_CENTRED
from metrics.motion.dynamic_degree import DYNAMIC_DEGREE
from metrics.motion.flow import FLOW_ERROR_TO_TRUTH, FLOW_FIDELITY, LAYOUT_LEAKAGE_FLOW, WARPING_ERROR
from metrics.motion.motion_agreement import AMPLITUDE_RATIO, MOTION_AGREEMENT, MOTION_LAG, PCK
from metrics.motion.motion_fidelity import MOTION_FIDELITY, MOTION_FIDELITY_UPSTREAM
from metrics.motion.pose_change import ARRIVAL, JUMP
from metrics.motion.temporal_consistency import TEMPORAL_CONSISTENCY, TEMPORAL_CONSISTENCY_ADJACENT
from metrics.motion.trajectories import FRECHET_TO_TRUTH, MOTION_FIDELITY_HYBRID

__all__ = ["BY_FILE", "METRICS", "Candidates", "Features", "Metric", "Source", "Truth", "VideoFeatures"]

METRICS: dict[str, Metric] = {
    "motion_agreement": MOTION_AGREEMENT,
    "motion_agreement_centred": MOTION_AGREEMENT_CENTRED,
    "action_retrieval": ACTION_RETRIEVAL,
    "amplitude_ratio": AMPLITUDE_RATIO,
    "motion_lag": MOTION_LAG,
    "pck": PCK,
    "frechet_to_truth": FRECHET_TO_TRUTH,
    "flow_error_to_truth": FLOW_ERROR_TO_TRUTH,
    "arrival": ARRIVAL,
    "jump": JUMP,
    "true_appearance_error": TRUE_APPEARANCE_ERROR,
    "ssim_to_truth": SSIM_TO_TRUTH,
    "lpips_to_truth": LPIPS_TO_TRUTH,
    "identity_masked": IDENTITY_MASKED,
    "identity_by_part": IDENTITY_BY_PART,
    "appearance_leakage": APPEARANCE_LEAKAGE,
    "layout_leakage": LAYOUT_LEAKAGE,
    "viewpoint_leakage": VIEWPOINT_LEAKAGE,
    "motion_fidelity": MOTION_FIDELITY,
    "motion_fidelity_upstream": MOTION_FIDELITY_UPSTREAM,
    "motion_fidelity_hybrid": MOTION_FIDELITY_HYBRID,
    "flow_fidelity": FLOW_FIDELITY,
    "layout_leakage_flow": LAYOUT_LEAKAGE_FLOW,
    "appearance_consistency": APPEARANCE_CONSISTENCY,
    "appearance_consistency_upstream": APPEARANCE_CONSISTENCY_UPSTREAM,
    "identity_embedded": IDENTITY_EMBEDDED,
    "appearance_leakage_embedded": APPEARANCE_LEAKAGE_EMBEDDED,
    "temporal_consistency": TEMPORAL_CONSISTENCY,
    "temporal_consistency_adjacent": TEMPORAL_CONSISTENCY_ADJACENT,
    "warping_error": WARPING_ERROR,
    "text_similarity": TEXT_SIMILARITY,
    "text_similarity_upstream": TEXT_SIMILARITY_UPSTREAM,
    "dynamic_degree": DYNAMIC_DEGREE,
}
"""Every metric by name, in the order of the tables; a suite names its headline."""

BY_FILE: dict[str, Metric] = {"subject_kept": SUBJECT_KEPT, "subject_leakage": SUBJECT_LEAKAGE}
"""Metrics of features that no network here measures; `python -m benchmark.exchange features` reads them from files."""
