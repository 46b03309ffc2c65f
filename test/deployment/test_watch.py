"""When a policy that drives is taken back."""

from safe_support_ql.deployment.watch import DeploymentConfig, Watch


def test_a_rise_of_refused_or_late_requests_is_noticed_and_a_few_are_not() -> None:
    config = DeploymentConfig(window=100, refused=0.1, late=0.2)
    for kind, most in (("refused", 10), ("late", 20)):
        watch = Watch(config)
        for n in range(1000):  # 5 in 100, for ever
            assert not watch.note(**{"refused": False, "late": False} | {kind: n % 20 == 0})
        watch = Watch(config)
        said = [watch.note(**{"refused": False, "late": False} | {kind: True}) for _ in range(most + 1)]
        assert not any(said[:-1]) and f"more than {most}%" in said[-1]
