function scene = create_scene(adapter, objects)
scene.adapter = adapter;
scene.objects = objects;
end
