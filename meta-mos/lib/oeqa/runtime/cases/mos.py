#
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
"""On a booted image: the recorder runs as its unit says, serves its API, writes only where it may, and comes back."""

import json

from oeqa.core.decorator.depends import OETestDepends
from oeqa.runtime.case import OERuntimeTestCase
from oeqa.runtime.decorator.package import OEHasPackage


class MosTest(OERuntimeTestCase):
    """TEST_SUITES += "mos" """

    def on_target(self, command, timeout=120):
        status, output = self.target.run(command, timeout)
        self.assertEqual(status, 0, "%s: %s" % (command, output))
        return output

    def unit(self, name):
        return self.on_target("systemctl show --value --property %s mos.service" % name).strip()

    @OETestDepends(["ssh.SSHTest.test_ssh", "systemd.SystemdBasicTests.test_systemd_basic"])
    @OEHasPackage(["mos"])
    def test_unit_is_active(self):
        self.on_target("systemctl is-active mos.service")
        self.assertEqual(self.unit("User"), "mos")
        self.assertNotEqual(self.unit("WatchdogTimestamp"), "", "the watchdog was never fed")

    @OETestDepends(["mos.MosTest.test_unit_is_active"])
    def test_archive_lies_on_the_data_partition(self):
        self.on_target("mountpoint /data")
        self.on_target("test -d /data/mos/segments || test -d /data/mos")
        self.on_target("awk '$2 == \"/\" && $4 ~ /(^|,)ro(,|$)/ { found = 1 } END { exit !found }' /proc/mounts")

    @OETestDepends(["mos.MosTest.test_unit_is_active"])
    def test_api_answers(self):
        status = json.loads(self.on_target("mos status --json"))
        self.assertIsInstance(status, dict)
        self.on_target("mos devices")

    @OETestDepends(["mos.MosTest.test_unit_is_active"])
    def test_api_is_closed_to_strangers(self):
        status, output = self.target.run("su -s /bin/sh nobody -c 'mos status'")
        self.assertNotEqual(status, 0, "a user outside the group mos may use the API: %s" % output)

    @OETestDepends(["mos.MosTest.test_unit_is_active"])
    def test_killed_recorder_comes_back(self):
        before = self.unit("MainPID")
        self.on_target("systemctl kill --signal=KILL mos.service")
        # The socket holds the question until the next recorder answers it.
        self.on_target("mos status")
        after = self.unit("MainPID")
        self.assertNotEqual(before, after)
        self.assertNotEqual(after, "0")
