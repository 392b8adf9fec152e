"""Distances in the features of a judge, of InceptionV3 and of a CLIP model."""

import pickle

import pytest
import torch
from turpentine.pipeline.audits.class_judge import ClassJudge
from turpentine.pipeline.audits.features import Features, fidelity, load_features
from turpentine.pipeline.maths.metrics import frechet_distance
from turpentine.pipeline.support.errors import UserError

fid = pytest.importorskip("torchmetrics.image.fid")
pytest.importorskip("torch_fidelity")


@pytest.fixture(scope="module")
def judge():
    return ClassJudge.load("digits")


@pytest.fixture(scope="module")
def inception(tmp_path_factory):
    """A file with random weights in the place of the published ones."""
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save({}, path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fid.NoTrainInceptionV3, "load_state_dict", lambda self, state: None)
        network = fid.NoTrainInceptionV3("inception-v3-compat", ["2048"], str(path))
    torch.save(network.state_dict(), path)
    return path


def pictures(count, seed, shift=0.0, channels=1):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(count, channels, 8, 8, generator=generator) * 1.6 - 0.8 + shift).clamp(-1, 1)


def test_distances_in_the_judges_features(judge):
    features = load_features(None, judge)
    same = fidelity(features, pictures(200, 0), pictures(200, 1))
    other = fidelity(features, pictures(200, 0, 0.6), pictures(200, 1))
    expected = frechet_distance(judge.features(pictures(200, 0, 0.6)), judge.features(pictures(200, 1)))
    assert other["FID"] == pytest.approx(expected, rel=1e-3) and other["FID"] > 5 * same["FID"]
    assert other["CMMD"] > 5 * same["CMMD"]


@pytest.mark.parametrize(("drawn", "real", "width"), [(300, 500, 16), (40, 60, 64)])
def test_the_distance_is_that_of_torchmetrics(drawn, real, width):
    """The one case has more images than features, the other fewer."""

    class Identity(torch.nn.Module):
        num_features = width

        def forward(self, features):
            return features

    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(width, width, generator=generator)
    ours = torch.randn(drawn, width, generator=generator) @ mixing + 0.3
    theirs = torch.randn(real, width, generator=generator)
    reference = fid.FrechetInceptionDistance(feature=Identity(), normalize=False).set_dtype(torch.float64)
    reference.update(theirs.double(), real=True)
    reference.update(ours.double(), real=False)
    found = fidelity(Features("as they are", lambda features: features), ours, theirs)["FID"]
    assert found == pytest.approx(reference.compute().item(), rel=1e-4)


def test_the_interval_is_that_of_drawing_anew():
    """Features are the first eight pixels: sets of the same size, drawn anew, spread as the resampled ones do."""
    features = Features("first pixels", lambda images: images.flatten(1)[:, :8])
    real = pictures(4000, 99)
    found = fidelity(features, pictures(300, 0, 0.3), real)["FID_error"] / 1.96
    anew = [frechet_distance(features.extract(pictures(300, seed, 0.3)), features.extract(real)) for seed in range(100)]
    assert found == pytest.approx(torch.tensor(anew).std().item(), rel=0.4)


def test_inception_from_a_local_file(judge, inception):
    features = load_features(f"inception:{inception}", judge)
    assert features.extract(pictures(3, 0)).shape == (3, 2048)
    grey, colour = pictures(2, 0), pictures(2, 0).expand(-1, 3, -1, -1)
    assert torch.equal(features.extract(grey), features.extract(colour))
    found = fidelity(features, pictures(4, 0), pictures(4, 1))
    assert found["FID"] >= 0 and found["FID_error"] >= 0


def test_a_clip_model(judge):
    features = load_features("tiny-canvas", judge)
    assert features.sigma == 10
    extracted = features.extract(pictures(2, 0, channels=3))
    torch.testing.assert_close(extracted.norm(dim=1), torch.ones(2))


class Harm:
    def __reduce__(self):
        return print, ("run by the file",)


def test_files_that_are_no_weights(judge, tmp_path, capsys):
    with pytest.raises(UserError, match=r"expected a file with InceptionV3's weights after 'inception:', found none"):
        load_features(f"inception:{tmp_path / 'gone.pth'}", judge)
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="does not hold InceptionV3's weights as torch-fidelity has them"):
        load_features(f"inception:{tmp_path / 'other.pth'}", judge)
    (tmp_path / "harm.pth").write_bytes(pickle.dumps(Harm()))
    with pytest.raises(UserError, match="does not hold InceptionV3's weights"):
        load_features(f"inception:{tmp_path / 'harm.pth'}", judge)
    torch.save({"a": Harm()}, tmp_path / "harm.pth")
    with pytest.raises(UserError, match="does not hold InceptionV3's weights"):
        load_features(f"inception:{tmp_path / 'harm.pth'}", judge)
    assert "run by the file" not in capsys.readouterr().out
