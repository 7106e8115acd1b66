"""What devices run: each has its own front, data and budget, and picks its vectors by itself.

Here a device has a part of the study's training data, as in a simulation. On a real one, pass
``own_data``, a function that gives its own data set::

    def own_data(study, data, device, spec):
        return torchvision.datasets.ImageFolder("/home/device/pictures", ...)


    app = make_client_app(Path(__file__).parent, own_data)
"""

from pathlib import Path

from fl.flower import make_client_app

app = make_client_app(Path(__file__).parent)
