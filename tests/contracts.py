"""Suites that every head and every contender inherits."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_estimator

from bench import Contender, Images
from bench.evaluation.metrics import calibration_error
from featcache.errors import InvalidRequest
from heads import Head


def blobs(
    n_classes: int, per_class: int, width: int, spread: float = 3.0, seed: int = 0
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Embedding-like rows: more columns than a class has rows, skewed, of unequal scale."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(0, spread / np.sqrt(width) * 3, (n_classes, width))
    y = np.repeat(np.arange(n_classes), per_class)
    X = centres[y] + generator.normal(size=(len(y), width))
    X = np.maximum(X, 0) * generator.uniform(0.1, 30, width)
    order = generator.permutation(len(y))
    return X[order].astype(np.float32), y[order]


class HeadContract:
    """What every head promises. Subclasses name the head and how good it must be."""

    head: Head
    accuracy = 0.9
    # Checks of scikit-learn that a head does not meet, with the reason.
    known_failures: ClassVar[dict[str, str]] = {
        "check_methods_subset_invariance": "asks for 1e-7 of probabilities: float32 sums differ "
        "by as much with the number of rows; see test_a_rows_answer_is_its_own"
    }

    @pytest.fixture
    def data(self) -> Any:
        X, y = blobs(8, 50, 96)
        return X[:300], y[:300], X[300:], y[300:]

    def fitted(self, X: Any, y: Any) -> Head:
        return clone(self.head).fit(X, y)

    def test_it_passes_scikit_learns_own_checks(self) -> None:
        results = check_estimator(
            clone(self.head), on_fail=None, on_skip=None, expected_failed_checks=self.known_failures
        )
        failed = [
            (r["check_name"], str(r["exception"])[:300]) for r in results if r["status"] == "failed"
        ]
        assert not failed

    def test_it_learns(self, data: Any) -> None:
        X, y, U, v = data
        assert np.mean(self.fitted(X, y).predict(U) == v) >= self.accuracy

    def test_probabilities_are_a_distribution_over_the_classes(self, data: Any) -> None:
        X, y, U, _ = data
        head = self.fitted(X, y)
        proba = head.predict_proba(U)
        assert proba.shape == (len(U), 8)
        assert np.allclose(proba.sum(axis=1), 1)
        assert (proba >= 0).all()
        assert np.array_equal(head.classes_[proba.argmax(axis=1)], head.predict(U))

    def test_a_rows_answer_is_its_own(self, data: Any) -> None:
        X, y, U, _ = data
        head = self.fitted(X, y)
        alone = np.concatenate([head.predict_proba(row[None]) for row in U])
        assert np.allclose(alone, head.predict_proba(U), rtol=1e-4, atol=1e-6)

    def test_probabilities_are_calibrated(self) -> None:
        X, y = blobs(4, 400, 32, spread=0.9)  # overlapping classes, so that certainty is wrong
        head = self.fitted(X[:800], y[:800])
        proba = head.predict_proba(X[800:])
        assert calibration_error(y[800:], proba) < 0.08

    def test_labels_of_any_type_come_back(self, data: Any) -> None:
        X, y, U, v = data
        names = np.array([f"breed {i}" for i in range(8)])
        assert np.mean(self.fitted(X, names[y]).predict(U) == names[v]) >= self.accuracy

    def test_the_same_rows_give_the_same_head(self, data: Any) -> None:
        X, y, U, _ = data
        assert np.array_equal(
            self.fitted(X, y).predict_proba(U), self.fitted(X, y).predict_proba(U)
        )

    def test_as_plain_arrays_it_says_the_same(self, data: Any) -> None:
        X, y, U, _ = data
        names = [f"breed {i}" for i in range(8)]
        head = self.fitted(X, y)
        if not head.can_be_bundled:
            with pytest.raises(InvalidRequest, match="bundle a logistic, svm, lightgbm or dense"):
                head.to_classifier(names)
            return
        classifier = head.to_classifier(names)
        assert classifier.classes == names
        assert np.allclose(classifier.predict_proba(U), head.predict_proba(U), atol=1e-6)

    def test_one_class_is_a_clear_error(self, data: Any) -> None:
        X = data[0]
        with pytest.raises(InvalidRequest, match="only one class: 'cat'"):
            self.fitted(X, ["cat"] * len(X))

    def test_the_training_rows_are_not_changed(self, data: Any) -> None:
        X, y, *_ = data
        before = X.copy()
        self.fitted(X, y)
        assert np.array_equal(X, before)

    def test_the_scale_and_offset_of_columns_do_not_matter(self, data: Any) -> None:
        X, y, U, v = data
        head = self.fitted(X * 1e-6 + 1e-6, y)
        assert np.mean(head.predict(U * 1e-6 + 1e-6) == v) >= self.accuracy

    def test_constant_columns_do_no_harm(self, data: Any) -> None:
        X, y, U, v = data
        head = self.fitted(np.hstack([X, np.full((len(X), 5), 7.3, "f4")]), y)
        assert (
            np.mean(head.predict(np.hstack([U, np.full((len(U), 5), 7.3, "f4")])) == v)
            >= self.accuracy
        )

    def test_many_classes_with_few_rows_each(self) -> None:
        X, y = blobs(60, 12, 128, spread=5)
        head = self.fitted(X[:540], y[:540])
        assert np.mean(head.predict(X[540:]) == y[540:]) >= self.accuracy - 0.15

    def test_two_rows_a_class_are_enough_to_fit(self) -> None:
        X, y = blobs(3, 2, 16)
        assert self.fitted(X, y).predict_proba(X).shape == (6, 3)


class ContenderContract:
    """What every contender promises. Subclasses give `make` and small images of two kinds."""

    accuracy = 0.9
    keeps_files = True

    def make(self) -> Contender:
        raise AssertionError("a subclass makes the contender")

    @pytest.fixture
    def prepared(self, easy_images: Any) -> Any:
        images, codes = easy_images
        contender = self.make()
        contender.prepare(images, progress=False)
        return contender, images, codes

    def halves(self, images: Images) -> tuple[Any, Any]:
        return np.arange(0, len(images), 2), np.arange(1, len(images), 2)

    def test_it_learns_and_gives_probabilities_in_the_order_asked(self, prepared: Any) -> None:
        contender, images, codes = prepared
        train, test = self.halves(images)
        contender.fit(images.take(train), codes[train], 2, random_state=0, progress=False)
        proba = contender.predict_proba(images.take(test))
        assert proba.shape == (len(test), 2)
        assert np.allclose(proba.sum(axis=1), 1, atol=1e-4)
        assert np.mean(proba.argmax(axis=1) == codes[test]) >= self.accuracy
        backwards = contender.predict_proba(images.take(test[::-1]))
        assert np.allclose(backwards[::-1], proba, atol=1e-4)

    def test_a_class_without_training_images_has_its_column(self, prepared: Any) -> None:
        contender, images, codes = prepared
        train, test = self.halves(images)
        contender.fit(images.take(train), codes[train], 4, random_state=0, progress=False)
        assert contender.predict_proba(images.take(test)).shape == (len(test), 4)

    def test_an_unusable_image_is_named_with_its_reason(
        self, easy_images: Any, tmp_path: Any
    ) -> None:
        images, _ = easy_images
        bad = tmp_path / "bad.png"
        bad.write_bytes(b"no image")
        from featcache.images.image_file import content_id

        more = Images((*images.paths, str(bad)), (*images.ids, content_id(b"no image")))
        unusable = self.make().prepare(more, progress=False)
        assert list(unusable) == [content_id(b"no image")]
        assert "known format" in unusable[content_id(b"no image")]

    def test_it_describes_itself(self, prepared: Any) -> None:
        contender, images, codes = prepared
        train, _ = self.halves(images)
        contender.fit(images.take(train), codes[train], 2, random_state=0, progress=False)
        facts = contender.facts()
        assert facts.total_parameters >= facts.trainable_parameters > 0
        assert facts.backbone
        assert (facts.disk_bytes > 0) == self.keeps_files

    def test_two_boxes_of_a_photo_are_two_examples(self, easy_images: Any, tmp_path: Any) -> None:
        # Each photo is dark on the left and bright on the right: only the box tells which.
        from PIL import Image

        from featcache.images.image_file import content_id

        pixels, ids = [], []
        for i in range(20):
            noise = np.random.default_rng(i).integers(0, 90, (20, 40, 3), np.uint8)
            noise[:, 20:] += np.uint8(150)
            Image.fromarray(noise).save(tmp_path / f"{i}.png")
            pixels += [str(tmp_path / f"{i}.png")] * 2
            ids += [content_id((tmp_path / f"{i}.png").read_bytes())] * 2
        images = Images(tuple(pixels), tuple(ids), ((0, 0, 20, 20), (20, 0, 40, 20)) * 20, "box")
        assert len(set(images.ids)) == 40
        codes = np.arange(40) % 2
        contender = self.make()
        assert not contender.prepare(images, progress=False)
        contender.fit(images.take(range(20)), codes[:20], 2, random_state=0, progress=False)
        proba = contender.predict_proba(images.take(range(20, 40)))
        assert np.mean(proba.argmax(axis=1) == codes[20:]) >= self.accuracy

    def test_its_estimate_is_of_time_and_room(self, easy_images: Any) -> None:
        images, _ = easy_images
        estimate = self.make().estimate(images, 30, 2)
        if estimate is None:
            assert not self.keeps_files
        else:
            assert 0 < estimate.seconds < 600
            assert 0 < estimate.disk_bytes < 10**9
            assert estimate.what
