"""What Preview Layers tells frontends and clients."""


def test_pictures_for_everyone_and_names_for_the_viewer(comfy, graph):
    picture = graph.add("EmptyImage", width=16, height=8, batch_size=2, color=0)[0]
    graph.add("OmniAlphaPreviewLayers", layers=picture, names="sky")
    graph.add("OmniAlphaPreviewLayers", layers=picture)
    outputs = comfy.run(graph.prompt)["outputs"]
    named, unnamed = outputs["2"], outputs["3"]
    assert named["omnialpha_names"] == ["sky", "layer 1"] and unnamed["omnialpha_names"] == ["background", "layer 1"]
    for shown in (named, unnamed):
        assert [file["type"] for file in shown["images"]] == ["temp", "temp"]
    names = {file["filename"] for shown in (named, unnamed) for file in shown["images"]}
    assert len(names) == 4, "browsers keep pictures by name"
