"""An evaluation of a run's own black box: by queries, with nothing of it but answers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from advgan.attacks.baselines import Advance, Arrays, Baseline, black_box_baselines
from advgan.classifiers import checks as classifier_checks
from advgan.classifiers.classifier import Classifier
from advgan.classifiers.query_counter import Purpose, QueryCounter
from advgan.evaluation import checks
from advgan.evaluation.cache import ResultCache
from advgan.evaluation.curve import epsilons_of_curve
from advgan.evaluation.subject import SQUARE_QUERIES, EvaluationRequest, MoreResults, Subject
from advgan.metrics import share, success_rate
from advgan.records.evaluation import Gap, Options, Queries
from advgan.records.finding import Finding
from advgan.records.summary import BlackBoxSummary


@dataclass(frozen=True, kw_only=True)
class BlackBoxSubject(Subject):
    """A run's generator against its black box."""

    counters: tuple[QueryCounter, QueryCounter, QueryCounter]
    """The black box behind three counters, each of which keeps its answers: one for every figure, and for the checks
    one with the same images again and one with single images."""
    distilled: Classifier
    """The network that the generator was trained against."""
    stated: BlackBoxSummary
    """What the run's summary says of its black box."""
    journal: dict[Purpose, int] | None
    """How many answers the run's journal holds, by purpose; None where it is gone."""

    @property
    def queries(self) -> int:
        """How many queries the evaluation made so far, killed processes and earlier evaluations included."""
        return sum(sum(counter.queries.values()) for counter in self.counters)

    def options(self, request: EvaluationRequest) -> Options:
        """With the most queries of Square."""
        return super().options(request).model_copy(update={"square_queries": self._square_queries(request)})

    def introduction(self, request: EvaluationRequest) -> list[str]:
        """How many queries are ahead."""
        most = self._most_queries(request)
        made = f"{self.queries:,} of them made already"
        return [f"Queries        {most:,} at most for the evaluation, {made}; not counted for the attack"]

    def check_classifier(self, held_out: Finding) -> list[Finding]:
        """Also whether it is the one that the run attacked, within its budget."""
        stated, classes = self.stated, self.dataset.number_of_classes
        same = checks.check_same_black_box(self.classifier.digest, stated.digest)
        uncached = [counter.classifier for counter in self.counters[1:]]
        return [
            *classifier_checks.check_answers(self.classifier, self.images, classes, white_box=False, uncached=uncached),
            checks.not_for_a_black_box("gradients"),
            held_out,
            same,
            checks.check_budget(sum(stated.attack_queries.values()), stated.query_budget, self.journal, stated.queries),
        ]

    def baselines(self, request: EvaluationRequest) -> tuple[list[Baseline], Classifier]:
        """The gradient that is followed is the distilled network's."""
        return black_box_baselines(self.goal, self.epsilon, request.restarts, request.pgd_steps), self.distilled

    def about_gradients(self, finding: Finding) -> Finding:
        """Nothing: a black box shows no gradient."""
        return checks.not_for_a_black_box(finding.guard)

    def more_stages(self, request: EvaluationRequest, stages: ResultCache, made: Arrays) -> MoreResults:
        """Square, which makes queries of its own, and the distilled network in the black box's place."""
        gap = self._gap(stages, made)
        found = self.square(request, self._square_queries(request), stages, made, logits=False)
        return replace(found, judged=(checks.check_agreement(gap.agreement_clean),), gap=gap)

    @staticmethod
    def _square_queries(request: EvaluationRequest) -> int:
        return SQUARE_QUERIES if request.square_queries is None else request.square_queries

    def figures(self, more: MoreResults) -> dict[str, object]:
        """What the attack and the evaluation cost in queries, and what that bought."""
        return {
            "queries": self._count_queries(),
            "queries_curve": more.square,
            "distilled": more.gap,
            "attacks_left_out": more.left_out,
        }

    def _gap(self, stages: ResultCache, made: Arrays) -> Gap:
        """The stage ``distilled``: the distilled network's answers and those of the black box."""
        labels, distilled = self.test.labels, self.distilled

        def work(advance: Advance) -> Arrays:
            clean = distilled.predict(self.images)
            advance(len(labels))
            answers = distilled.predict(made["adversarial"])
            advance(len(labels))
            return {"clean_predictions": clean, "predictions": answers}

        found = stages.result("distilled", {"distilled": distilled.digest}, 2 * len(labels), work)
        return Gap(
            architecture=self.stated.distilled.architecture,
            sha256=distilled.digest,
            success=success_rate(self.goal, labels, made["clean_predictions"], found["predictions"]),
            agreement_clean=share(found["clean_predictions"] == made["clean_predictions"]),
            agreement_adversarial=share(found["predictions"] == made["predictions"]),
        )

    def _count_queries(self) -> Queries:
        """The queries of the attack, and those of the evaluation."""
        stated = self.stated
        total = sum(stated.attack_queries.values())
        return Queries(
            answers=stated.answers,
            attack=stated.attack_queries,
            attack_total=total,
            per_image=total / len(self.test),
            budget=stated.query_budget,
            scoring_in_training=stated.queries["scoring"],
            evaluation=self.queries,
        )

    def _most_queries(self, request: EvaluationRequest) -> int:
        """How many queries an evaluation makes at most, but for the few of the picture of samples."""
        images = len(self.test)
        noise_fgsm_pgd = 3 + request.restarts
        for_each = 3 + len(epsilons_of_curve(self.epsilon)) - 1 + noise_fgsm_pgd
        probes = min(classifier_checks.PROBE_IMAGES, images) + classifier_checks.ALONE_IMAGES
        return for_each * images + probes + min(request.optimized_images, images) * self._square_queries(request)
